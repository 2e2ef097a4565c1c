"""pipeline/definitions.py: everything Dagster loads, and nothing more."""

from pipeline.definitions import defs


def test_the_definitions_load_with_the_job_and_its_schedule() -> None:
    repository = defs.get_repository_def()
    jobs = {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")}
    assert jobs == {"clean_string_job"}
    assert {schedule.name for schedule in repository.schedule_defs} == {"every_minute"}
    assert [node.name for node in repository.get_job("clean_string_job").nodes_in_topological_order] == [
        "get_string",
        "normalize_string",
        "clean_string",
    ]
