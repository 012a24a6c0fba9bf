"""Options for what work in the background may take, of `up` and of `serve` alike."""

from minigfs.terminal import bytes_option

__all__ = ["SCRUB_DAYS", "SCRUB_DAYS_HELP", "repair_rate_option", "scrub_rate_option"]

SCRUB_DAYS = 7
SCRUB_DAYS_HELP = "A chunkserver reads every byte, and compares it with its sums, within this time."

repair_rate_option = bytes_option(
    "--repair-rate",
    "repair_rate",
    help="Bytes a second that may be copied to one chunkserver to make lost replicas again and to "
    "even out disks.  [default: 64MiB]",
)
scrub_rate_option = bytes_option(
    "--scrub-rate",
    "scrub_rate",
    help="Bytes a second that a chunkserver reads to look for damage; more if --scrub-days asks "
    "for it.  [default: 4MiB]",
)
