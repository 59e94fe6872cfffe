//! CPU time of processes and their descendants, from `/proc` (proc(5)).

use std::collections::BTreeMap;
use std::path::Path;

/// Clock ticks per second in `/proc`: 100 on every Linux, independent of the kernel's tick rate
/// (`sysconf(_SC_CLK_TCK)`).
const TICKS_PER_SECOND: f64 = 100.0;

/// The state of a process.
struct ProcessSample {
    parent: u32,
    name: String,
    /// CPU time of the process and of its children that have terminated and were waited for.
    ticks: u64,
}

/// Returns the name of each process, and the CPU seconds of it and its descendants. Processes that do not
/// exist are omitted.
pub(crate) fn seconds(pids: &[u32]) -> Vec<(String, f64)> {
    let processes = processes();
    let of = |pid: &u32| {
        let name = processes.get(pid)?.name.clone();
        let family = processes.iter().filter(|(one, _)| descends(&processes, **one, *pid));
        let ticks: u64 = family.map(|(_, process)| process.ticks).sum();
        #[expect(clippy::cast_precision_loss, reason = "ticks of a lifetime fit into 53 bits")]
        Some((name, ticks as f64 / TICKS_PER_SECOND))
    };
    pids.iter().filter_map(of).collect()
}

fn processes() -> BTreeMap<u32, ProcessSample> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, read_stat(pid)?))).collect()
}

fn read_stat(pid: u32) -> Option<ProcessSample> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name is in parentheses and may contain parentheses, so the fields start after the last one.
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = after.split_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let ticks = fields.get(11..15)?.iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Some(ProcessSample { parent, name, ticks })
}

fn descends(processes: &BTreeMap<u32, ProcessSample>, mut pid: u32, ancestor: u32) -> bool {
    while pid != ancestor {
        match processes.get(&pid) {
            Some(process) if process.parent != pid && process.parent != 0 => pid = process.parent,
            Some(_) | None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_with_its_name() {
        let found = seconds(&[std::process::id(), u32::MAX]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0.starts_with("loadgen"), "{found:?}");
        assert!(descends(&processes(), std::process::id(), std::process::id()));
    }
}
