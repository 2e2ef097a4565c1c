"""pipeline/definitions.py: everything Dagster loads, and nothing more."""

from pipeline.definitions import defs


def test_the_definitions_load_with_the_job_and_the_clean_up_and_a_schedule_for_each() -> None:
    repository = defs.get_repository_def()
    jobs = {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")}
    assert jobs == {"clean_string_job", "retention_job"}
    assert {schedule.name for schedule in repository.schedule_defs} == {"every_minute", "every_night"}
    assert [node.name for node in repository.get_job("clean_string_job").nodes_in_topological_order] == [
        "get_string",
        "normalize_string",
        "clean_string",
    ]
