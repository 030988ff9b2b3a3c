//! What a process has used, from /proc.

use std::fs;

/// Linux reports CPU time to programs in hundredths of a second on every architecture we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// `None` where there is no such process or no /proc.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    pub(crate) rss_bytes: Option<u64>,
    pub(crate) peak_rss_bytes: Option<u64>,
}

/// CPU seconds of user and kernel together; `process` is a number or "self".
pub(crate) fn cpu_seconds(process: &str) -> Option<f64> {
    cpu_seconds_in(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

pub(crate) fn memory(process: &str) -> Memory {
    fs::read_to_string(format!("/proc/{process}/status"))
        .map_or_else(|_| Memory::default(), |text| memory_in(&text))
}

fn cpu_seconds_in(stat: &str) -> Option<f64> {
    // The second field is the program's name in parentheses, which may hold spaces and parentheses itself.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND)
}

fn memory_in(status: &str) -> Memory {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
        Some(kilobytes * 1024)
    };
    Memory {
        rss_bytes: bytes("VmRSS:"),
        peak_rss_bytes: bytes("VmHWM:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_an_awkward_name() {
        let stat = "77 (a ) b (c) S 1 77 77 0 -1 4194304 100 0 0 0 123 45 6 7 20 0 1 0 1234";
        assert_eq!(cpu_seconds_in(stat), Some(1.68));
        assert_eq!(cpu_seconds_in("77 (x) S 1 2"), None);
        assert_eq!(cpu_seconds_in(""), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        let status = "Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let expected = Memory {
            rss_bytes: Some(1_048_576),
            peak_rss_bytes: Some(2_097_152),
        };
        assert_eq!(memory_in(status), expected);
        assert_eq!(memory_in("Name:\tzombie\n"), Memory::default());
    }
}
