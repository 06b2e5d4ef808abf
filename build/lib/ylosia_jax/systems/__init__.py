"""Systems: functions that return a network and its tasks, with a paper's numbers as defaults."""
