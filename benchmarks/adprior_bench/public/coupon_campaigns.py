"""Coupon campaigns as a logged ranking task: who was sent which campaign, and who redeemed what.

A request is a household that was sent a campaign, at the campaign's start. The candidates are the
advertisers of the campaign's coupons. A coupon belongs to the advertiser that has more than half of
its products; coupons of whole departments belong to none and are left out, and so are their
redemptions. The label is 1 if the household redeemed a coupon of the advertiser in this campaign.

The guide of the original study says that a household in a campaign of type A received only 16 of
the campaign's coupons, chosen by its earlier purchases, and that the tables do not tell which. Most
candidates of these requests were never shown: a label of 0 means less than in types B and C.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from adprior_bench.public.complete_journey import Tables, name_types

_ADVERTISER: Final = "product_type"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CampaignLog:
    """The task, and what was left out of it.

    Attributes:
        rows: One row for each candidate of a request, columns as `adprior bench quality
            --ranking-log` takes them: ``request`` text, ``user`` int64, ``time`` and ``closes``
            date32, ``advertiser`` text, ``label`` int64; also ``campaign_type``.
        coupons: Coupons, each counted once in each of its campaigns.
        coupons_of_none: Those that belong to no advertiser.
        redemptions: Redemptions.
        redemptions_used: Those behind a label of 1.
        early_campaigns: Campaigns left out because they begin before the log's second day.
    """

    rows: pa.Table
    coupons: int
    coupons_of_none: int
    redemptions: int
    redemptions_used: int
    early_campaigns: int

    def sentence(self) -> str:
        """Return the size of the task."""
        label = self.rows["label"]
        requests = pc.count_distinct(self.rows["request"]).as_py()
        return (
            f"{requests:,} requests with {self.rows.num_rows:,} candidates, "
            f"{pc.sum(label).as_py() or 0:,} of them positive; left out: {self.coupons_of_none:,} "
            f"of {self.coupons:,} coupons, which belong to no single advertiser, "
            f"{self.redemptions - self.redemptions_used:,} of {self.redemptions:,} redemptions, "
            f"and {self.early_campaigns} campaigns from before the log"
        )


def derive_campaign_log(tables: Tables) -> CampaignLog:
    """Return the ranking task; see the module."""
    coupons = _distinct(tables["coupons"], ["campaign_id", "coupon_upc", "product_id"])
    issued = _distinct(coupons, ["campaign_id", "coupon_upc"]).num_rows
    owned = _owned_coupons(coupons, tables["products"])
    times = tables["transactions"]["transaction_timestamp"].cast(pa.date32())
    span = pc.min_max(times).as_py()
    about = tables["campaign_descriptions"].select(
        ["campaign_id", "campaign_type", "start_date", "end_date"]
    )
    known = about.filter(pc.greater(about["start_date"].cast(pa.date32()), span["min"]))
    redeemed = tables["coupon_redemptions"].join(
        owned, ["campaign_id", "coupon_upc"], join_type="inner"
    )
    redeemed = redeemed.join(known, "campaign_id", join_type="inner")
    positive = _distinct(redeemed, ["campaign_id", "household_id", _ADVERTISER])
    positive = positive.append_column("label", pa.array([1] * positive.num_rows, pa.int64()))
    candidates = _distinct(owned, ["campaign_id", _ADVERTISER])
    sent = _distinct(tables["campaigns"], ["campaign_id", "household_id"])
    rows = sent.join(known, "campaign_id", join_type="inner")
    rows = rows.join(candidates, "campaign_id", join_type="inner")
    rows = rows.join(positive, ["campaign_id", "household_id", _ADVERTISER])
    order = ["start_date", "campaign_id", "household_id", _ADVERTISER]
    rows = rows.sort_by([(name, "ascending") for name in order])
    last = pa.scalar(span["max"], pa.date32())
    request = pc.binary_join_element_wise(
        rows["campaign_id"].cast(pa.string()), rows["household_id"].cast(pa.string()), "-"
    )
    return CampaignLog(
        rows=pa.table(
            {
                "request": request,
                "user": rows["household_id"],
                "time": rows["start_date"].cast(pa.date32()),
                "closes": pc.min_element_wise(rows["end_date"].cast(pa.date32()), last),
                "advertiser": rows[_ADVERTISER],
                "label": pc.fill_null(rows["label"], 0),
                "campaign_type": rows["campaign_type"],
            }
        ),
        coupons=issued,
        coupons_of_none=issued - owned.num_rows,
        redemptions=tables["coupon_redemptions"].num_rows,
        redemptions_used=redeemed.num_rows,
        early_campaigns=about.num_rows - known.num_rows,
    )


def _owned_coupons(coupons: pa.Table, products: pa.Table) -> pa.Table:
    """Return the coupons with a majority advertiser: campaign, coupon, advertiser."""
    coupon = ["campaign_id", "coupon_upc"]
    typed = coupons.join(name_types(products), "product_id", join_type="inner")
    by_type = typed.group_by([*coupon, _ADVERTISER]).aggregate([("product_id", "count")])
    whole = typed.group_by(coupon).aggregate([("product_id", "count")])
    whole = whole.rename_columns([*coupon, "products"])
    both = by_type.join(whole, coupon, join_type="inner")
    is_most = pc.greater(pc.multiply(both["product_id_count"], 2), both["products"])
    return both.filter(is_most).select([*coupon, _ADVERTISER])


def _distinct(table: pa.Table, names: list[str]) -> pa.Table:
    return table.select(names).group_by(names).aggregate([])
