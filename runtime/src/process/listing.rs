//! A process as `ps -ef` shows it, from /proc alone.

use std::fs;
use std::os::unix::fs::MetadataExt;

use time::{Duration, OffsetDateTime};

/// Headings of [`full_row`].
pub const FULL_TITLES: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];

/// `None` if there is no such process any more. Times are UTC.
pub fn full_row(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let owner = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second();
    let stat = Stat::parse(&stat, ticks)?;
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let age = (uptime - stat.started).max(0.0);
    let now = OffsetDateTime::now_utc();
    let busy = match age >= 1.0 {
        true => stat.cpu as f64 / age * 100.0,
        false => 0.0,
    };
    Some(vec![
        user(&users, owner),
        pid.to_string(),
        stat.parent.to_string(),
        (busy as u64).min(99).to_string(),
        start_time(now - Duration::seconds_f64(age), now),
        terminal(stat.terminal),
        cpu_time(stat.cpu),
        command(&words, &stat.name),
    ])
}

struct Stat {
    name: String,
    parent: i32,
    terminal: u32,
    /// Seconds.
    cpu: u64,
    /// Seconds after the boot.
    started: f64,
}

impl Stat {
    /// proc_pid_stat(5). The name may hold blanks and parentheses: it ends with the last one.
    fn parse(line: &str, ticks: u64) -> Option<Stat> {
        let (front, back) = line.rsplit_once(')')?;
        let (_, name) = front.split_once('(')?;
        let fields: Vec<&str> = back.split_whitespace().collect();
        // The first is field 3, the state.
        let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
        let ticks = ticks.max(1);
        Some(Stat {
            name: name.to_owned(),
            parent: i32::try_from(number(4)?).ok()?,
            terminal: number(7)? as u32,
            cpu: (number(14)? + number(15)?) as u64 / ticks,
            started: number(22)? as f64 / ticks as f64,
        })
    }
}

/// Eight characters at most, the last a `+` where the name is cut, as procps has it.
fn user(passwd: &str, uid: u32) -> String {
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    match name {
        Some(name) if name.chars().count() > 8 => {
            let front: String = name.chars().take(7).collect();
            format!("{front}+")
        }
        Some(name) => name.to_owned(),
        None => uid.to_string(),
    }
}

fn start_time(start: OffsetDateTime, now: OffsetDateTime) -> String {
    let month = start.month().to_string();
    match (start.date() == now.date(), start.year() == now.year()) {
        (true, _) => format!("{:02}:{:02}", start.hour(), start.minute()),
        (false, true) => format!("{}{:02}", &month[..3], start.day()),
        (false, false) => start.year().to_string(),
    }
}

/// Device numbers as in Documentation/admin-guide/devices.txt: 4 is ttyN, 136 to 143 are pts/N.
fn terminal(device: u32) -> String {
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xfff00);
    match major {
        0 => "?".to_owned(),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => "?".to_owned(),
    }
}

fn cpu_time(seconds: u64) -> String {
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let clock = format!("{:02}:{minutes:02}:{:02}", hours % 24, seconds % 60);
    match hours / 24 {
        0 => clock,
        days => format!("{days}-{clock}"),
    }
}

/// A kernel thread or a zombie has no words: its name stands for it. What a program writes into its words must not break a line.
fn command(words: &[u8], name: &str) -> String {
    let text = String::from_utf8_lossy(words).replace('\0', " ");
    let text: String = text
        .trim_end()
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    match text.is_empty() {
        true => format!("[{name}]"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_stat_line_is_read_past_any_name() {
        let line = "42 (a) b) S 7 1 1 34817 1 2 3 4 5 6 250 50 9 9 20 0 1 0 1000 5 5\n";
        let stat = Stat::parse(line, 100).unwrap();
        assert_eq!((stat.name.as_str(), stat.parent, stat.cpu), ("a) b", 7, 3));
        assert_eq!(stat.started, 10.0);
        assert_eq!(terminal(stat.terminal), "pts/1");
    }

    #[test]
    fn cells_are_as_ps_has_them() {
        let passwd = "root:x:0:0::/:/bin/sh\nsystemd-network:x:998:998::/:/bin/sh\n";
        assert_eq!(user(passwd, 0), "root");
        assert_eq!(user(passwd, 998), "systemd+");
        assert_eq!(user(passwd, 4), "4");
        let now = datetime!(2026-11-23 15:06:00 UTC);
        assert_eq!(start_time(datetime!(2026-11-23 01:02:00 UTC), now), "01:02");
        assert_eq!(start_time(datetime!(2026-10-03 01:02:00 UTC), now), "Oct03");
        assert_eq!(cpu_time(3723), "01:02:03");
        assert_eq!(cpu_time(90_000), "1-01:00:00");
        assert_eq!(command(b"sleep\x0010\x00", "sleep"), "sleep 10");
        assert_eq!(command(b"a\nb\x1b[2J\x00", "x"), "a?b?[2J");
        assert_eq!(command(b"", "kthreadd"), "[kthreadd]");
    }

    #[test]
    fn this_very_process_has_a_row() {
        let row = full_row(std::process::id() as i32).unwrap();
        assert_eq!(row.len(), FULL_TITLES.len());
        assert_eq!(row[1], std::process::id().to_string());
    }
}
