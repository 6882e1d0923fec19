"""One file a measure. Each defines ``MEASURE``; that is all there is to adding one."""
