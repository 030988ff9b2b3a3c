//! How much memory there is and how much we use, as the kernel tells it.

use std::fs;

/// Memory this process may have: the machine's, or its control group's if that is less. `None` where the kernel does
/// not tell.
pub(super) fn total_bytes() -> Option<u64> {
    let machine = kib_line(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
    Some(group_limits().fold(machine, u64::min))
}

/// Memory of this process that is resident now; 0 where the kernel does not tell.
pub(super) fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    kib_line(&status, "VmRSS:").unwrap_or(0)
}

/// Limits of the control groups we are in, both versions. Unlimited ones are numbers beyond any machine, or words.
fn group_limits() -> impl Iterator<Item = u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // Inside a container its own group is mounted as the root, and the path is the host's.
        files.push(format!("{root}{}/{file}", path.trim_end_matches('/')));
        files.push(format!("{root}/{file}"));
    }
    files
        .into_iter()
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
}

/// The number behind a name in a file of lines such as `VmRSS:   1234 kB`, in bytes.
fn kib_line(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_there_is_and_what_we_use() {
        let total = total_bytes().unwrap();
        assert!((1..=total).contains(&resident_bytes()));
    }

    #[test]
    fn a_line_is_read_in_bytes_and_anything_else_is_not() {
        let text = "VmPeak:\t  99 kB\nVmRSS:\t   12 kB\nThreads:\t3\n";
        assert_eq!(kib_line(text, "VmRSS:"), Some(12 * 1024));
        assert_eq!(kib_line(text, "Threads:"), None);
        assert_eq!(kib_line(text, "VmSwap:"), None);
    }
}
