//! A container's streams and its log, from the caller's side: attach, relay, logs; and what is noted of them as events.

use std::io::Write;

use super::{Engine, LogOptions, end, finish, limits};
use crate::attach::{self, Outcome, Session, Streams};
use crate::error::Error;
use crate::events;
use crate::logs;
use crate::monitor;
use crate::record::State;
use crate::store;
use crate::wire;

impl Engine {
    /// Joins the streams of a running container: what it writes from now on, and its stdin.
    pub fn attach(&mut self, name: &str) -> Result<Session, Error> {
        let stored = store::find(&self.conn, name)?;
        let container = stored.container;
        let (State::Running { .. }, Some(init)) = (&container.state, stored.init) else {
            return Err(match container.state {
                State::Restarting { .. } => Error::AttachRestarting,
                _ => Error::AttachStopped,
            });
        };
        if limits::is_paused(&container) {
            return Err(Error::AttachPaused);
        }
        let failed = |source| Error::Io {
            step: "attach",
            container: container.id.clone(),
            source,
        };
        let directory = monitor::directory(&self.settings.run_root, &container.id);
        let socket = wire::connect(&directory.join(finish::SOCKET)).map_err(failed)?;
        wire::send(&socket, wire::Kind::Attach, &[]).map_err(failed)?;
        Ok(Session {
            socket,
            tty: container.request.tty,
            container: container.id.clone(),
            init: Some(init),
            joined: true,
        })
    }

    /// Relays between the caller's streams and a session until the program ends or the user detaches. A monitor that is
    /// killed meanwhile gets a successor, and the relay goes on with that.
    pub fn relay(&mut self, session: Session, mut streams: Streams) -> Result<Outcome, Error> {
        let id = session.container.clone();
        let is_container = session.init.is_some();
        // A start in the foreground has told of it before the start, as Docker's client attaches first.
        if is_container && session.joined {
            self.note(&id, "attach", &[]);
        }
        let mut session = session;
        loop {
            let mut resized = |rows: u16, columns: u16| {
                if is_container {
                    let (height, width) = (rows.to_string(), columns.to_string());
                    self.note(&id, "resize", &[("height", &height), ("width", &width)]);
                }
            };
            let outcome = attach::relay(&session, &mut streams, &mut resized)?;
            let Some(outcome) = outcome else {
                if !is_container {
                    return Err(broke(id));
                }
                match self.after_break(&id)? {
                    Next::Relay(next) => session = next,
                    Next::Ended(code) => return Ok(Outcome::Exited(code)),
                }
                continue;
            };
            if is_container && outcome == Outcome::Detached {
                self.note(&id, "detach", &[]);
            }
            return Ok(outcome);
        }
    }

    /// The monitor has gone without a word, so it was killed: repair starts another where the program goes on.
    fn after_break(&mut self, id: &str) -> Result<Next, Error> {
        if let Some(stored) = store::get(&self.conn, id)?
            && !finish::is_answered_for(&stored)
        {
            self.repair_one(&stored)?;
        }
        match self.attach(id) {
            Ok(session) => Ok(Next::Relay(session)),
            // With --rm nobody knows any more how it ended.
            Err(Error::NoSuchContainer(_)) => Err(broke(id.to_owned())),
            Err(Error::AttachStopped | Error::Io { .. }) => end::wait(self, id).map(Next::Ended),
            Err(e) => Err(e),
        }
    }

    /// `logs`: writes to the two streams; returns at the end of the log, or with `follow` when the container ends.
    pub fn logs(
        &mut self,
        name: &str,
        options: &LogOptions,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> Result<(), Error> {
        let stored = store::find(&self.conn, name)?;
        let id = &stored.container.id;
        let Some(format) = logs::check(&stored.container.request.log)?.format else {
            return Err(Error::NoLog);
        };
        let path = finish::storage(&self.settings.root, id).join(format.file_name());
        let ended = match stored.container.state {
            State::Running { .. } | State::Restarting { .. } => stored
                .owner
                .and_then(|o| o.process.open())
                .map(|handle| handle.into_fd()),
            _ => None,
        };
        let read = logs::read(&path, format, options, ended.as_ref(), out, err);
        read.map_err(|source| Error::Io {
            step: "read the log",
            container: id.clone(),
            source,
        })
    }

    /// An event that nothing depends on: that it cannot be entered is no reason to break off a relay.
    fn note(&self, id: &str, action: &str, more: &[(&str, &str)]) {
        let noted = store::get(&self.conn, id).and_then(|stored| match stored {
            Some(stored) => events::record_container(&self.conn, &stored.container, action, more),
            None => Ok(()),
        });
        if let Err(e) = noted {
            tracing::warn!(container = id, "cannot enter the event {action}: {e}");
        }
    }
}

/// What becomes of a relay whose monitor was killed.
enum Next {
    Relay(Session),
    Ended(i32),
}

fn broke(container: String) -> Error {
    Error::MonitorBroke {
        container,
        step: "relayed the streams",
        messages: "none".into(),
    }
}
