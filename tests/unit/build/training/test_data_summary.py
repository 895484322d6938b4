from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from adprior_build.catalogue.catalogue import read_catalogue
from adprior_build.data.event_log import UserHistory
from adprior_build.data.split import Split
from adprior_build.training.data_summary import describe_data
from adprior_runtime.prompt.context import Event
from support.small_checkpoint import CUT, SmallData


def user(name: str, *events: tuple[int, str | None]) -> UserHistory:
    """Return a user with events on days of February 2024, or of January for those below 0."""
    return UserHistory(
        user_id=name,
        events=tuple(
            Event(
                time=datetime(2024, 1 if day < 0 else 2, abs(day), tzinfo=UTC),
                action="purchase",
                advertiser=advertiser,
            )
            for day, advertiser in events
        ),
    )


def test_rows_users_dates_and_what_is_left_out_are_said(tmp_path: Path) -> None:
    SmallData.write(tmp_path)
    catalogue = read_catalogue(tmp_path / "catalogue.parquet")
    read = [
        user("a", (-3, "Acme"), (-9, None), (4, "Acme")),
        user("b", (-2, "Nobody"), (-5, "Acme")),
        user("c", (-30, "Acme"), (8, "Acme")),
    ]
    split = Split(cut=CUT)
    training, validation = split.training_part(read[:1]), split.training_part(read[1:2])
    path = Path("log.parquet")
    lines = describe_data(path, catalogue, read=read, training=training, validation=validation)
    assert lines == [
        "log.parquet: 7 events of 3 users, 2024-01-02 to 2024-02-08",
        "trains on 2 events of 1 users, validates on 2 events of 1 users",
        "leaves out 2 events of 1 users; 1 events from the cut on; "
        "2 events as targets, which name no advertiser of the catalogue",
    ]
    whole = describe_data(path, catalogue, read=read[2:], training=read[2:], validation=[])
    assert whole[1:] == ["trains on 2 events of 1 users, validates on 0 events of 0 users"]
    nothing = describe_data(path, catalogue, read=[], training=[], validation=[])
    assert nothing == [
        "log.parquet: 0 events of 0 users",
        "trains on 0 events of 0 users, validates on 0 events of 0 users",
    ]
