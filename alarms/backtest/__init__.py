"""``alarms backtest``: how often, how long and when alarms would have fired on exported history, old definitions against new."""

from alarms.backtest.data import Export, Exports, load
from alarms.backtest.replay import Episode, Outcome, replay
from alarms.backtest.report import Backtest, picture, print_backtest

__all__ = ["Backtest", "Episode", "Export", "Exports", "Outcome", "load", "picture", "print_backtest", "replay"]
