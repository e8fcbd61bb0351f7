//! A tar that `import` fetches from a web server.

use std::io::Read;

use crate::error::Error;
use crate::registry;

/// Redirects that are followed.
const MOST_REDIRECTS: u32 = 10;

/// The body of what a URL (http or https) leads to, as it comes.
pub fn open(url: &str) -> Result<Box<dyn Read + Send>, Error> {
    let refuse = |why: String| Error::Fetch {
        url: url.to_owned(),
        why,
    };
    let request = registry::agent_for(url)?.get(url);
    let request = request.config().max_redirects(MOST_REDIRECTS).build();
    let response = request.call().map_err(|e| refuse(e.to_string()))?;
    if !response.status().is_success() {
        return Err(refuse(format!("the server answered {}", response.status())));
    }
    Ok(Box::new(response.into_body().into_reader()))
}
