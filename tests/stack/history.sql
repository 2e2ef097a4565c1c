-- Copies the rows of the finished run :template, as Dagster wrote them, to :runs new runs. They are :apart (a minute)
-- apart, and end :before (no time) before that run. The run's id and the times in columns change, those in JSON do not.
\if :{?apart}
\else
\set apart '1 minute'
\endif
\if :{?before}
\else
\set before '0 minutes'
\endif

CREATE TEMP TABLE new_runs AS
SELECT gen_random_uuid()::text AS run_id, interval :'before' + n * interval :'apart' AS age, n
FROM generate_series(:runs, 1, -1) AS n;

INSERT INTO runs (run_id, snapshot_id, pipeline_name, mode, status, run_body, partition, partition_set,
                  create_timestamp, update_timestamp, start_time, end_time, backfill_id)
SELECT new.run_id, snapshot_id, pipeline_name, mode, status, replace(run_body, old.run_id, new.run_id), partition,
       partition_set, create_timestamp - age, update_timestamp - age, start_time - extract(epoch FROM age),
       end_time - extract(epoch FROM age), backfill_id
FROM new_runs AS new, runs AS old WHERE old.run_id = :'template' ORDER BY n DESC;

INSERT INTO run_tags (run_id, key, value)
SELECT new.run_id, key, value FROM new_runs AS new, run_tags AS old WHERE old.run_id = :'template' ORDER BY n DESC;

INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)
SELECT new.run_id, replace(event, old.run_id, new.run_id), dagster_event_type, timestamp - age, step_key, asset_key,
       partition
FROM new_runs AS new, event_logs AS old WHERE old.run_id = :'template' ORDER BY n DESC, old.id;
