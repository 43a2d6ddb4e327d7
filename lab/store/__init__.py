"""The retail store: load balancer, UI, Catalog, Carts, Checkout and Orders as separate processes."""
