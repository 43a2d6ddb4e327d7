"""An on-call receiver that stands for a pager service."""
