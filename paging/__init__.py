"""From alarm to one page per incident: the notifier that runs as a Lambda in every Region."""
