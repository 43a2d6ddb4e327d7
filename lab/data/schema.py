"""The tables of the Catalog and Orders databases, the store's assortment, and the heartbeat that replication lag is measured with.

Statements are separated by blank lines, as PostgreSQL's single-user mode reads them.
"""

from __future__ import annotations

from dataclasses import dataclass

HEARTBEAT = """
CREATE TABLE heartbeat (single boolean PRIMARY KEY DEFAULT true CHECK (single), written double precision NOT NULL, region text NOT NULL)

INSERT INTO heartbeat (written, region) VALUES (0, '')
"""

ORDERS = """
CREATE TABLE customer_order (
    id uuid PRIMARY KEY,
    first_name text NOT NULL,
    last_name text NOT NULL,
    email text NOT NULL,
    created_on timestamptz NOT NULL,
    region text NOT NULL,
    synthetic boolean NOT NULL DEFAULT false
)

CREATE INDEX ON customer_order (email, created_on DESC)

CREATE INDEX ON customer_order (created_on DESC) WHERE NOT synthetic

CREATE TABLE order_item (
    order_id uuid NOT NULL REFERENCES customer_order ON DELETE CASCADE,
    product_id uuid NOT NULL,
    name text NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0),
    unit_cost integer NOT NULL,
    PRIMARY KEY (order_id, product_id)
)
"""

CATALOG = """
CREATE TABLE product (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    description text NOT NULL,
    price integer NOT NULL CHECK (price > 0),
    count integer NOT NULL,
    image_url text NOT NULL
)

CREATE TABLE product_tag (
    product_id uuid NOT NULL REFERENCES product ON DELETE CASCADE,
    name text NOT NULL,
    PRIMARY KEY (product_id, name)
)
"""

TAGS = {"dress": "Dress", "casual": "Casual", "sport": "Sport", "smart": "Smart", "luxury": "Luxury"}


@dataclass(frozen=True, slots=True)
class Product:
    """One article. ``price`` is in whole dollars, ``count`` what is in stock."""

    id: str
    name: str
    description: str
    price: int
    count: int
    tags: tuple[str, ...]

    @property
    def image_url(self) -> str:
        """Where the UI serves its picture."""
        return f"/assets/{self.name.lower().replace(' ', '-')}.svg"


PRODUCTS = (
    Product(
        "6d62d909-f957-430e-8689-b5129c0bb75e",
        "Harbour Field",
        "Hand-wound, with a dial you can read in any weather.",
        385,
        33,
        ("casual",),
    ),
    Product(
        "a0a4f044-b040-410d-8ead-4de0446aec7e",
        "Night Ferry",
        "Black steel, a moon phase and a case that has seen salt.",
        650,
        18,
        ("dress", "smart"),
    ),
    Product("808a2de1-1aaa-4c25-a9b9-6612e8f29a38", "Lap Counter", "Split seconds, big pushers, made for the track.", 275, 51, ("sport",)),
    Product(
        "510a0d7e-8e83-4193-b483-e27e09ddc34d",
        "Civil Engineer",
        "A square watch for round hours; quartz, and proud of it.",
        190,
        77,
        ("casual", "smart"),
    ),
    Product(
        "ee3715be-b4ba-11ea-b3de-0242ac130004",
        "First Violin",
        "Rose gold on calf leather, thin enough for any cuff.",
        5100,
        3,
        ("dress", "luxury"),
    ),
    Product(
        "f4ebd070-b4ba-11ea-b3de-0242ac130004", "Deep Gauge", "Good to three hundred metres, tested to four.", 890, 12, ("sport", "luxury")
    ),
)


def schemas() -> dict[str, str]:
    """Each database's name and the SQL that fills it."""
    return {
        "catalog": "\n\n".join((HEARTBEAT.strip(), CATALOG.strip(), _assortment())),
        "orders": "\n\n".join((HEARTBEAT.strip(), ORDERS.strip())),
    }


def _assortment() -> str:
    products = ",\n".join(f"('{p.id}', '{p.name}', '{p.description}', {p.price}, {p.count}, '{p.image_url}')" for p in PRODUCTS)
    tags = ",\n".join(f"('{p.id}', '{tag}')" for p in PRODUCTS for tag in p.tags)
    return (
        f"INSERT INTO product (id, name, description, price, count, image_url) VALUES\n{products}"
        f"\n\nINSERT INTO product_tag (product_id, name) VALUES\n{tags}"
    )
