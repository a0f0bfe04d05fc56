"""Videos in an S3 bucket: moto's server on loopback, read through s3fs; `make test` installs neither."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evalkit.api import Views
from evalkit.config.parse import resolve
from evalkit.features.key import identify
from evalkit.pipeline import task_data
from evalkit.video import media
from evalkit.video.clips import Failure, read_clip
from tests.video.packed import pack
from tests.video.test_remote import frames

pytest.importorskip("s3fs", reason="needs s3fs: pip install 'video-evalkit[s3]'")
pytest.importorskip("moto.server", reason="needs moto's server: pip install 'moto[server]'")


@pytest.fixture(scope="module")
def bucket(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a bucket with two films and a tar of three."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        tar = tmp_path_factory.mktemp("bucket") / "000.tar"
        pack(tar, sorted(films.iterdir())[:3])
        files = s3fs.S3FileSystem()
        files.mkdir("videos")
        for name in ("00.mp4", "01.mp4"):
            files.put(str(films / name), f"videos/{name}")
        files.put(str(tar), "videos/shards/000.tar")
        yield "s3://videos"
    server.stop()


@pytest.mark.filterwarnings("ignore")  # of botocore and moto
def test_videos_of_a_bucket_are_those_of_the_files(bucket: str, films: Path) -> None:
    for name in ("01.mp4", "shards/000.tar/01.mp4"):
        path = media.path_of(f"{bucket}/{name}")
        assert np.array_equal(frames(path), frames(films / "01.mp4"))
        assert identify(path) == identify(films / "01.mp4")
    assert media.exists(media.path_of(f"{bucket}/01.mp4")) and not media.exists(media.path_of(f"{bucket}/no.mp4"))
    failure = read_clip(media.path_of(f"{bucket}/no.mp4"), None, Views("uniform"), 4, 32)
    assert isinstance(failure, Failure) and "no.mp4" in failure.reason


@pytest.mark.filterwarnings("ignore")
def test_a_task_finds_its_videos_in_a_bucket(bucket: str, films: Path, tmp_path: Path) -> None:
    rows = "".join(f"0{i}.mp4,{'ab'[i % 2]},{'train' if i < 2 else 'test'}\n" for i in range(3))
    (tmp_path / "labels.csv").write_text(f"path,label,split\n{rows}")
    words = ["task=folder", f"data.root={tmp_path / 'labels.csv'}", "ckpt=demo", f"data.videos={bucket}/shards/000.tar"]
    task = task_data.load_task(resolve("run", words))
    (example,) = task.test
    assert identify(example.video) == identify(films / "02.mp4")
