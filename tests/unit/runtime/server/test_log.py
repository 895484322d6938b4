from __future__ import annotations

from pathlib import Path

import pytest

from adprior_runtime.errors import ArtefactError, EnvironmentProblemError, ServerAbortedError
from adprior_runtime.server.log import explain_failure, has_begun, keep_previous


def test_the_previous_log_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    keep_previous(None)
    keep_previous(log)
    log.write_text("why")
    keep_previous(log)
    assert not log.exists()
    assert (tmp_path / "server.log.previous").read_text() == "why"
    device = tmp_path / "stderr"
    device.symlink_to(tmp_path / "server.log.previous")
    keep_previous(device)
    assert device.is_symlink()


@pytest.mark.parametrize(
    ("log", "error", "message"),
    [
        (
            "E1121 04:12:00.087717 7178 model_lifecycle.cc:642] \"failed to load 'tokenizer' "
            "version 1: Internal: ArtefactError: /r/prompt.json: hash is 0a, expected 1b\\n\\nAt:"
            '\\n  /r/tokenizer/1/model.py(4): initialize\\n"\n',
            ArtefactError,
            "model tokenizer: /r/prompt.json: hash is 0a, expected 1b",
        ),
        (
            "E1121 04:12:00.087717 7178 model_lifecycle.cc:642] \"failed to load 'm' version 1: "
            "Internal: ModuleNotFoundError: No module named 'x'\\n\\nAt:\\n  /r/m/1/model.py\"\n",
            ArtefactError,
            "model m did not load: Internal: ModuleNotFoundError: No module named 'x'",
        ),
        (
            'E1121 04:17:08.040624 8042 model_repository_manager.cc:1460] "Poll failed for model '
            "directory 'm': failed to read text proto from /r/m/config.pbtxt\"\n",
            ArtefactError,
            "model m did not load: failed to read text proto from /r/m/config.pbtxt",
        ),
        (
            'E1121 04:17:09.095711 8050 server.cc:241] "CudaDriverHelper has not been initialized."'
            '\nE1121 04:17:09.100855 8050 manager.cc:703] "Invalid argument: no model gone"\n'
            'E1121 04:17:09.101 8050 ensemble_scheduler.cc:1468] "unable to create stream for m"\n'
            "error: creating server: Internal - failed to load all models\n",
            EnvironmentProblemError,
            "tritonserver: Invalid argument: no model gone",
        ),
        (
            "error: unexpected argument\n",
            EnvironmentProblemError,
            "tritonserver: unexpected argument",
        ),
        (
            "terminate called after throwing an instance of 'boost::interprocess::lock_exception'\n"
            "  what():  boost::interprocess::lock_exception\nSignal (6) received.\n",
            ServerAbortedError,
            "tritonserver aborted by itself: boost::interprocess::lock_exception",
        ),
        (
            "terminate called after throwing an instance of 'std::system_error'\n"
            "  what():  Resource temporarily unavailable\n",
            ServerAbortedError,
            "tritonserver aborted by itself: std::system_error: Resource temporarily unavailable",
        ),
        (
            "E1121 04:12:00.087717 7178 model_lifecycle.cc:642] \"failed to load 'm' version 1: "
            "Internal: Stub process 'm_0_0' is not healthy.\"\n",
            ServerAbortedError,
            "model m did not load: Internal: Stub process 'm_0_0' is not healthy.",
        ),
    ],
)
def test_the_log_explains_a_failure_in_one_line(
    log: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "server.log"
    file.write_text(log, encoding="utf-8")
    found = explain_failure(file)
    assert type(found) is error
    assert str(found) == message


def test_the_servers_first_own_line_shows_that_it_has_begun(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    assert not has_begun(log)
    log.write_text("ERROR: ld.so: object 'x.so' from LD_PRELOAD cannot be preloaded: ignored.\n")
    assert not has_begun(log)
    log.write_text(
        log.read_text() + 'W1121 17:27:24.087717 7178 pinned_memory_manager.cc:273] "no"'
    )
    assert has_begun(log)


def test_a_log_without_a_reason_explains_nothing(tmp_path: Path) -> None:
    assert explain_failure(tmp_path / "none.log") is None
