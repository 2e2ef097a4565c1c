"""The example pipeline: pick a sentence, change its letter case, clean out its punctuation. Replace it with yours."""

from pipeline.definitions import defs

clean_string_job = defs.resolve_job_def("clean_string_job")
