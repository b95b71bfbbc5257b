"""Which texts do the tables of exercises 3.1 to 3.3 stand on?

Command:  python lab2/prepare_data.py
Time:     half a minute
Expect:   four folders under data/, each file of the MD5 that the published runs read

    python lab2/prepare_data.py --datasets codah cranfield
    python lab2/prepare_data.py --from-dir DIR    the originals lie in DIR, as --dry-run lists them
    python lab2/prepare_data.py --dry-run         what would be fetched from where, and made of it

The originals, 7 MB, are fetched from copies on GitHub, at one version for good, and divided as for the published runs:
how, lab2/tasks/originals.py says. The scripts then find each folder by its name, --dataset codah. What is there already
is checked and left. The model, all-MiniLM-L6-v2, the scripts fetch from the hub by themselves.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Annotated, Literal

from lab1.engine.config import RunConfig, RunFailed, flag, require
from lab1.engine.launch import launch
from lab2.tasks import originals
from lab2.tasks.originals import MADE, ORIGINALS


@dataclasses.dataclass
class Config(RunConfig):
    """The flags of this script."""

    datasets: tuple[Literal["rotten_tomatoes", "ag_news", "codah", "cranfield"], ...] = tuple(ORIGINALS)
    """Which to prepare."""
    from_dir: Annotated[Path | None, flag("DIR")] = None
    """Folder that holds the originals already, each in a folder named as its data set (default: fetch them)."""
    dry_run: bool = False
    """Say what would be fetched from where and made of it, and do neither."""

    def check(self) -> None:
        super().check()
        require(len(self.datasets) > 0, "--datasets: at least one is needed, such as --datasets codah")
        require(self.from_dir is None or self.from_dir.is_dir(), f"--from-dir {self.from_dir}: no such folder")
        require(self.resume is None, "--resume: run it again; what is there already is left")


def prepare(name: str, config: Config) -> None:
    """Make the folder of a data set under ``--data-dir``, unless it is there.

    Raises:
        UsageError: where an original cannot be had, or what is there is not what the published runs read.
    """
    from lab1.engine.download import fetching, md5_of, whole

    place = config.data_folder() / name
    if place.exists():
        for file, md5 in MADE[name].items():
            require((place / file).is_file(), f"{place} lacks {file}: move this folder away and run again")
            other = f"{place / file} is not what the published runs read: move {place} away and run again"
            require(md5_of(place / file) == md5, other)
        print(f"{place} is there already: {len(MADE[name])} files, each of the MD5 that the published runs read")
        return
    with fetching(name, place), whole(place, config.data_folder()) as temporary:
        made = getattr(originals, name)(read(name, config, temporary))
        for file, text in made.items():
            content, path = text.encode(), temporary / name / file
            md5 = hashlib.md5(content).hexdigest()
            if md5 != MADE[name][file]:
                raise RunFailed(f"{name}, {file} is not what the published runs read: its MD5 is {md5}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            print(f"{place / file}  MD5 {md5}")


def read(name: str, config: Config, temporary: Path) -> dict[str, str]:
    """The text of each original of a data set, from ``--from-dir`` or else from its address, with ``\\n`` at the end of
    each line. UsageError where one cannot be had or is another file."""
    from lab1.engine.download import fetch, md5_of
    from lab1.engine.network import require_network

    if config.from_dir is None:
        require_network(list(ORIGINALS[name])[:1], name, config.data_folder() / name, True, written=True)
    texts = {}
    for address, md5 in ORIGINALS[name].items():
        file = address.rpartition("/")[2]
        path = (config.from_dir or temporary) / ("originals" if config.from_dir is None else name) / file
        if config.from_dir is None:
            fetch([address], path, md5)
        require(path.is_file(), f"--from-dir {config.from_dir}: no file {path}; it is at {address}")
        require(md5_of(path) == md5, f"{path} is not the file at {address}: its MD5 differs")
        texts[file] = path.read_bytes().decode().replace("\r\n", "\n")
    return texts


def main(config: Config) -> None:
    """Each data set in turn; in a dry run, what would be done."""
    for name in config.datasets:
        if config.dry_run:
            for address in ORIGINALS[name]:
                file = f"{name}/{address.rpartition('/')[2]}"
                print(f"{file}  from {address if config.from_dir is None else config.from_dir / file}")
            print(f"  would become {', '.join(MADE[name])} in {config.data_folder() / name}")
        else:
            prepare(name, config)


if __name__ == "__main__":
    launch(main, Config)
