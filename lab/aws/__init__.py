"""The local AWS: one HTTP endpoint per Region, strict where moto is not."""
