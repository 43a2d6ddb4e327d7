"""The web page that shows the matrix, the alarms, the pages and the dashboard."""
