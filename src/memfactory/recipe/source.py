"""Where Hydra gets its config files: from folders, by our own reader, under either of YAML's two endings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import version
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.hydra import Hydra
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.initialize import get_gh_backup, restore_gh_from_backup
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from memfactory.recipe.files import config_file, read_yaml
from memfactory.recipe.yaml_text import read_bytes

SCHEME = "recipe"


class RecipeSource(ConfigSource):
    """A folder of config files, `recipe:///some/folder`. Files are read within the limits of `yaml_text`."""

    @staticmethod
    def scheme() -> str:
        """How search paths name this source."""
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """One file; its errors are `BadInput`."""
        path = config_file(Path(self.path, config_path))
        if path is None:
            raise ConfigLoadError(f"Config not found : {config_path}")
        header = self._get_header_dict(read_bytes(path)[:512].decode("utf-8-sig", errors="replace"))
        return ConfigResult(
            config=OmegaConf.create(read_yaml(path)),
            path=f"{SCHEME}://{self.path}",
            provider=self.provider,
            header=header,
        )

    def available(self) -> bool:
        """Whether the folder is there."""
        return self.is_group("")

    def is_group(self, config_path: str) -> bool:
        """Whether it is a folder here."""
        try:
            return Path(self.path, config_path).is_dir()
        except OSError:
            return False

    def is_config(self, config_path: str) -> bool:
        """Whether there is a file of that name here."""
        return config_file(Path(self.path, config_path)) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Names of groups and configs in a folder, for Hydra's own messages."""
        found: list[str] = []
        for path in sorted(Path(self.path, config_path).iterdir()):
            self._list_add_result(found, f"{config_path}/{path.name}".lstrip("/"), path.name, results_filter)
        return sorted(set(found))


@contextmanager
def hydra_over(folders: Sequence[Path]) -> Iterator[None]:
    """Within, `hydra.compose` finds configs in these folders, the first before the others."""
    if not any(known is RecipeSource for known in Plugins.instance().discover(ConfigSource)):
        Plugins.instance().register(RecipeSource)
    path = ConfigSearchPathImpl()
    path.append("hydra", "pkg://hydra.conf")
    for folder in folders:
        path.append("main", f"{SCHEME}://{folder}")
    path.append("schema", "structured://")
    before = get_gh_backup()
    version.setbase("1.3")
    Hydra.create_main_hydra2(task_name="memfactory", config_search_path=path)
    try:
        yield
    finally:
        restore_gh_from_backup(before)
