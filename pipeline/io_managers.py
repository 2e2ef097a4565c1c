"""How outputs are stored: texts as text files. All others use Dagster's default, pickles."""

import os

import dagster as dg
from upath import UPath


class TextIOManager(dg.UPathIOManager):
    """Stores each text at `<base path>/<run id>/<output name>.txt`, in UTF-8, unchanged."""

    extension = ".txt"

    def get_op_output_relative_path(self, context: dg.InputContext | dg.OutputContext) -> UPath:
        """Return `<run id>/<output name>` of the run that produced the output."""
        output = context.upstream_output if isinstance(context, dg.InputContext) else context
        assert output is not None
        return UPath(output.run_id, output.name)

    def dump_to_path(self, context: dg.OutputContext, obj: object, path: UPath) -> None:
        """Write the text atomically, so that a killed run leaves no partial file. TypeError unless it is a `str`."""
        if not isinstance(obj, str):
            raise TypeError(f"{type(self).__name__} stores str, but {context.name} is {type(obj).__name__}")
        content = obj.encode()
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_bytes(content)
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
        context.log_event(
            dg.AssetMaterialization(
                asset_key=context.name,
                metadata={"path": dg.MetadataValue.path(str(path)), "length": len(obj), "preview": obj[:100]},
            )
        )

    def load_from_path(self, context: dg.InputContext, path: UPath) -> str:
        """Return the text. FileNotFoundError, with the path, if it was deleted."""
        return path.read_bytes().decode()


class TextIOManagerFactory(dg.ConfigurableIOManagerFactory[TextIOManager]):
    """Creates a `TextIOManager`. `base_path` defaults to the variable DATA_PATH, or to `data`.

    It is a directory, or a URL whose fsspec package is installed, such as `s3://bucket/prefix` or `gs://…`.
    """

    base_path: str | None = None

    def create_io_manager(self, context: dg.InitResourceContext) -> TextIOManager:
        """Return a `TextIOManager` on the base path, made absolute."""
        base_path = self.base_path or os.getenv("DATA_PATH") or "data"
        return TextIOManager(UPath(base_path).absolute())
