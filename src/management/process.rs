//! What the kernel tells about this process. Read when somebody asks.

use std::{fs, path::Path};

/// Numbers of this process and of the disk that its data is on. Unknown ones are 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    pub(super) resident_bytes: u64,
    pub(super) open_files: u64,
    pub(super) open_files_max: u64,
    pub(super) threads: u64,
    pub(super) context_switches: u64,
    pub(super) cpu_ticks: u64,
    pub(super) disk_free_bytes: u64,
    pub(super) processors: usize,
}

const PAGE_BYTES: u64 = 4096;

impl Process {
    pub(super) fn now(data_dir: &Path) -> Self {
        let status = read("/proc/self/status");
        let statm = read("/proc/self/statm");
        let resident = statm.split_whitespace().nth(1).map_or(0, number);
        Self {
            resident_bytes: resident * PAGE_BYTES,
            open_files: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            open_files_max: open_files_max(),
            threads: labelled(&status, "Threads:"),
            context_switches: labelled(&status, "voluntary_ctxt_switches:")
                + labelled(&status, "nonvoluntary_ctxt_switches:"),
            cpu_ticks: cpu_ticks(),
            disk_free_bytes: rustix::fs::statvfs(data_dir)
                .map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize)),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// The first number behind a label that begins a line.
fn labelled(text: &str, label: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(label))
        .and_then(|rest| rest.split_whitespace().next())
        .map_or(0, number)
}

fn open_files_max() -> u64 {
    read("/proc/self/limits")
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next())
        .map_or(0, |text| {
            if text == "unlimited" {
                1_048_576
            } else {
                number(text)
            }
        })
}

/// User and system time in ticks of a hundredth of a second. The program's name may hold spaces: count behind it.
fn cpu_ticks() -> u64 {
    let stat = read("/proc/self/stat");
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().skip(11).take(2).map(number).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_files_and_threads() {
        let process = Process::now(Path::new("/"));
        assert!(process.resident_bytes > 0);
        assert!(process.open_files > 0 && process.open_files_max >= process.open_files);
        assert!(process.threads > 0 && process.processors > 0 && process.disk_free_bytes > 0);
    }
}
