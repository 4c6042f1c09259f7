//! What a test takes of a processor.

use std::time::Duration;

/// Time that this thread has run, which does not pass while others have the processor (Linux).
pub fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}
