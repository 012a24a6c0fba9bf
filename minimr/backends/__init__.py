"""Where a job runs: in this process and its children, or on a cluster's workers."""
