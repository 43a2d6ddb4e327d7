"""The spool: a bounded, crash-safe queue of blocks on disk.

    DIR/                               0700, ours, no symbolic link, not shared
      j1-<Region>-<pid>-<random>/      one process's journal; `lock` is held for as long as the process lives
        lock  meta.json
        traces/                        one lane for each account
          00000001.seg  00000002.seg   records, appended and never changed
          cursor                       how far the first segment has been delivered

What a process writes survives its death by any signal, since the kernel has it; surviving the machine's death as well takes
CROSSWATCH_SPOOL_FSYNC=true. Another process of the same Region takes over a journal whose lock is free. Delivery is at least once: what was
being sent when the process died is sent again.
"""
