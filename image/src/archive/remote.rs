//! A tar that `import` fetches from a web server.

use std::io::Read;

use ureq::Agent;

use crate::error::Error;
use crate::registry;

/// Redirects that are followed.
const MOST_REDIRECTS: u32 = 10;

/// A URL (http or https) that can be asked.
pub struct Download<'a> {
    url: &'a str,
    agent: Agent,
}

impl<'a> Download<'a> {
    /// Asks nobody yet. A URL with a password in it is refused, by a text without it.
    pub fn of(url: &'a str) -> Result<Download<'a>, Error> {
        let agent = registry::agent_for(url)?;
        Ok(Download { url, agent })
    }

    /// The body of what it leads to, as it comes. A minute without a byte ends it.
    pub fn open(self) -> Result<Box<dyn Read + Send>, Error> {
        let refuse = |why: String| Error::Fetch {
            url: self.url.to_owned(),
            why,
        };
        // What was to be encrypted is not led out of encryption by a redirect.
        let encrypted = self.url.to_ascii_lowercase().starts_with("https://");
        let request = self.agent.get(self.url).config();
        let request = request
            .max_redirects(MOST_REDIRECTS)
            .https_only(encrypted)
            .build();
        let response = request.call().map_err(|e| refuse(e.to_string()))?;
        if !response.status().is_success() {
            return Err(refuse(format!("the server answered {}", response.status())));
        }
        Ok(Box::new(response.into_body().into_reader()))
    }
}
