"""Well-known schemas with made-up rows: what inference makes of them.

They stand in for the databases that users bring: employees (MySQL's sample), a shop with hashes
for keys (Olist), films (IMDb as in the Join Order Benchmark), a blog (WordPress), a Django shop
and a hospital (MIMIC). Of each column: `pk:1` counts from 1, `fk:t` points at t, and so on, see
`_column`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rfm.data.import_sql import ImportConfig, import_database

SCHEMAS = r"""
employees 300: emp_no=pk:10001 birth_date=time first_name=name gender=cat hire_date=time
departments 9: dept_no=text_pk:d00 dept_name=name
dept_emp 330: emp_no=fk:employees dept_no=fk:departments from_date=TIME to_date=never
dept_manager 24: dept_no=fk:departments emp_no=fk:employees from_date=TIME to_date=never
titles 440: emp_no=fk:employees title=cat from_date=TIME to_date=never
salaries 2800: emp_no=fk:employees salary=int:40000 from_date=TIME to_date=never
---
olist_customers_dataset 900: customer_id=hash_pk customer_unique_id=name customer_zip_code=int:1000
olist_orders_dataset 900: order_id=hash_pk customer_id=fk:olist_customers_dataset order_status=cat \
 order_purchase_timestamp=TIME order_approved_at=nullable order_estimated_delivery_date=time
olist_products_dataset 300: product_id=hash_pk product_category_name=cat product_weight_g=int:100
olist_sellers_dataset 60: seller_id=hash_pk seller_zip_code=int:1000 seller_city=cat
olist_order_items_dataset 1100: order_id=fk:olist_orders_dataset order_item_id=small \
 product_id=fk:olist_products_dataset seller_id=fk:olist_sellers_dataset shipping_date=TIME
olist_order_payments_dataset 1000: order_id=fk:olist_orders_dataset payment_sequential=small
---
title 2000: id=pk:1 title=name kind_id=fk:kind_type production_year=int:1900 episode_nr=small
kind_type 7: id=pk:1 kind=name
name 3000: id=pk:1 name=name gender=cat
role_type 12: id=pk:1 role=name
cast_info 9000: id=pk:1 person_id=fk:name movie_id=fk:title nr_order=small role_id=fk:role_type
company_name 400: id=pk:1 name=name country_code=cat
company_type 4: id=pk:1 kind=name
movie_companies 3000: id=pk:1 movie_id=fk:title company_id=fk:company_name \
 company_type_id=fk:company_type
info_type 113: id=pk:1 info=name
movie_info 6000: id=pk:1 movie_id=fk:title info_type_id=fk:info_type info=name
movie_link 600: id=pk:1 movie_id=fk:title linked_movie_id=fk:title
---
wp_users 40: ID=pk:1 user_login=name user_registered=TIME user_status=zero
wp_posts 500: ID=pk:1 post_author=fk:wp_users post_date=TIME post_modified=time \
 post_parent=fk:wp_posts menu_order=zero comment_count=small
wp_comments 900: comment_ID=pk:1 comment_post_ID=fk:wp_posts comment_date=TIME comment_karma=zero \
 user_id=fk:wp_users comment_parent=fk:wp_comments
wp_postmeta 2000: meta_id=pk:1 post_id=fk:wp_posts meta_key=cat meta_value=name
wp_terms 80: term_id=pk:1 name=name term_group=zero
wp_term_taxonomy 85: term_taxonomy_id=pk:1 term_id=fk:wp_terms taxonomy=cat count=small
wp_term_relationships 800: object_id=fk:wp_posts term_taxonomy_id=fk:wp_term_taxonomy
---
auth_user 120: id=pk:1 username=name last_login=nullable date_joined=TIME is_staff=flag
auth_group 5: id=pk:1 name=name
auth_user_groups 150: id=pk:1 user_id=fk:auth_user group_id=fk:auth_group
django_content_type 30: id=pk:1 app_label=cat model=name
auth_permission 120: id=pk:1 content_type_id=fk:django_content_type codename=name
shop_product 200: id=pk:1 name=name price=real created_at=TIME updated_at=time
shop_address 170: id=pk:1 user_id=fk:auth_user city=cat
shop_order 1000: id=pk:1 customer_id=fk:auth_user placed_at=TIME \
 shipping_address_id=fk:shop_address billing_address_id=fk:shop_address status=cat
shop_orderitem 3000: id=pk:1 order_id=fk:shop_order product_id=fk:shop_product quantity=small
---
patients 500: subject_id=pk:10000 gender=cat dob=time anchor_age=small
admissions 1200: hadm_id=pk:20000000 subject_id=fk:patients admittime=TIME deathtime=nullable
icustays 700: stay_id=pk:30000000 hadm_id=fk:admissions subject_id=fk:patients intime=TIME
d_items 300: itemid=pk:220000 label=name
chartevents 9000: subject_id=fk:patients hadm_id=fk:admissions stay_id=fk:icustays \
 itemid=fk:d_items charttime=TIME valuenum=real
"""


def _column(kind: str, of: str, n: int, keys: dict[str, Any], rng: np.random.Generator) -> Any:
    times = pd.Series(pd.Timestamp("2015-01-01") + pd.to_timedelta(rng.integers(0, 10**8, n), "s"))
    if kind == "fk":
        return rng.choice(keys[of], n)
    return {
        "pk": lambda: np.arange(n) + int(of),
        "text_pk": lambda: np.array([f"{of}{i}" for i in range(n)]),
        "hash_pk": lambda: np.array([rng.bytes(16).hex() for _ in range(n)]),
        "time": lambda: times,
        "TIME": lambda: times,  # the time column
        "nullable": lambda: times.where(rng.random(n) > 0.2),
        "never": lambda: times.where(rng.random(n) > 0.3, pd.Timestamp("2261-01-01")),
        "int": lambda: rng.integers(int(of), int(of) * 2 + 50, n),
        "small": lambda: rng.integers(1, 12, n),
        "zero": lambda: np.zeros(n, dtype=np.int64),
        "real": lambda: rng.normal(size=n),
        "flag": lambda: rng.random(n) > 0.5,
        "cat": lambda: rng.choice(["aa", "bb", "cc"], n),
        "name": lambda: [f"n{x}" for x in rng.integers(0, 10**6, n)],
    }[kind]()


def _made(text: str, folder: Path) -> tuple[dict[str, str], dict[str, str], set[tuple[str, str]]]:
    """Write a schema's tables; their keys, time columns, and (table.column, parent)."""
    rng, values = np.random.default_rng(0), {}
    keys, times, links, tables = {}, {}, set(), {}
    for line in text.replace("\\\n", "").strip().splitlines():
        head, _, rest = line.partition(": ")
        name, n = head.split()
        tables[name] = int(n), [c.partition("=")[::2] for c in rest.split()]
    for name, (n, columns) in tables.items():
        for column, spec in columns:
            kind, _, of = spec.partition(":")
            if kind.endswith("pk"):
                keys[name] = column
                values[name] = _column(kind, of, n, {}, rng)
    for name, (n, columns) in tables.items():
        frame = {}
        for column, spec in columns:
            kind, _, of = spec.partition(":")
            is_key = kind.endswith("pk")
            frame[column] = values[name] if is_key else _column(kind, of, n, values, rng)
            if kind == "TIME":
                times[name] = column
            elif kind == "fk":
                links.add((f"{name}.{column}", of))
        pd.DataFrame(frame).to_parquet(folder / f"{name}.parquet")
    return keys, times, links


def test_well_known_schemas(tmp_path: Path) -> None:
    tables = keys_right = times_right = 0
    true: set[tuple[str, str]] = set()
    found: set[tuple[str, str]] = set()
    for i, text in enumerate(SCHEMAS.split("---")):
        folder = tmp_path / str(i)
        folder.mkdir()
        keys, times, links = _made(text, folder)
        done = import_database(str(folder), tmp_path / "out", ImportConfig(dry_run=True))
        for name, plan in done.plan.tables.items():
            tables += 1
            keys_right += ", ".join(plan.key) == keys.get(name, "")
            times_right += plan.time.column == times.get(name, "")
            found |= {(f"{name}.{link.columns[0]}", link.parent) for link in plan.links}
        true |= links
    assert tables == 44
    assert keys_right >= 0.95 * tables
    assert times_right >= 0.95 * tables
    assert len(found & true) >= 0.95 * len(found), found - true
    assert len(found & true) >= 0.85 * len(true), true - found
