"""The UI: the store's pages, the only service behind the load balancer."""
