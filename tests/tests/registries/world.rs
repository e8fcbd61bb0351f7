//! A host with a store of images, and `docker-registry` in front of it, in as many ways as a test wants.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use harness::mock::{Answer, Mock, Request};
use harness::oci::{self, Image, SHELL};
use harness::registry::{PASSWORD, USER};
use harness::{Cmd, Host, Output, Running, eventually, images, net};

use crate::authority::Pair;

/// `htpasswd -nbB` of the harness's user and password.
const HTPASSWD: &str = "sailor:$2b$05$2RYFAzxvsk5FGH5T2X.jaet7BT0cBh/v.0qv./BDiNL1A5nrzfCX2\n";

pub struct World {
    pub host: Host,
}

/// How a registry is served.
#[derive(Default)]
pub struct Serve<'a> {
    pub tls: Option<&'a Pair>,
    /// Clients must have a certificate of this CA.
    pub client_ca: Option<&'a str>,
    pub password: bool,
}

impl World {
    /// The store holds `library/bb:1`.
    pub fn new() -> World {
        let world = World {
            host: Host::builder().without_image().build(),
        };
        fs::create_dir_all(world.folder("storage")).unwrap();
        let filling = world.serve("127.0.0.1:5999", &Serve::default());
        let layout = world.folder("layout");
        oci::write_layout(&layout, "1", &[Image::of(&[images::busybox_tar()], SHELL)]);
        Cmd::new("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--dest-tls-verify=false",
            ])
            .arg(format!("oci:{}:1", layout.display()))
            .arg("docker://127.0.0.1:5999/library/bb:1")
            .run_in(&world.host.netns)
            .ok();
        drop(filling);
        world
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        self.host.folder().join(name)
    }

    /// Serves the store at an address of the host, until dropped.
    pub fn serve(&self, address: &str, how: &Serve) -> Running {
        let name = address.replace([':', '.', '[', ']'], "-");
        let folder = self.folder(&format!("registry{name}"));
        fs::create_dir_all(&folder).unwrap();
        let mut config = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address:?}\n",
            self.folder("storage").display()
        );
        if let Some(pair) = how.tls {
            let (certificate, key) = pair.write(&folder, "server");
            config += &format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                certificate.display(),
                key.display()
            );
        }
        if let Some(ca) = how.client_ca {
            let path = folder.join("clients.pem");
            fs::write(&path, ca).unwrap();
            config += &format!("    clientcas:\n      - {}\n", path.display());
        }
        if how.password {
            let passwords = folder.join("htpasswd");
            fs::write(&passwords, HTPASSWD).unwrap();
            config += &format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                passwords.display()
            );
        }
        let path = folder.join("config.yml");
        fs::write(&path, config).unwrap();
        let server = Cmd::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .env("OTEL_TRACES_EXPORTER", "none")
            .limit(Duration::from_secs(3600))
            .spawn_in(&self.host.netns);
        eventually("the registry listens", || {
            net::connect(&self.host.netns, address)
        });
        server
    }

    /// One with this certificate, for anybody.
    pub fn serve_tls(&self, address: &str, pair: &Pair) -> Running {
        let how = Serve {
            tls: Some(pair),
            ..Serve::default()
        };
        self.serve(address, &how)
    }

    /// A server of the test's own on the host.
    #[track_caller]
    pub fn mock(
        &self,
        address: &str,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Mock {
        Mock::listen(&self.host.netns, address, move |request| {
            Some(answer(request))
        })
    }

    /// Puts files into a registry's folder of certificates; the folder of all is what `--cert-dir` takes.
    pub fn certificates(&self, registry: &str, files: &[(&str, &str)]) -> PathBuf {
        let all = self.folder("certs");
        let folder = all.join(registry);
        // What another step of the test has put there is gone.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        all
    }

    /// Runs `coracle pull` and takes the image away again.
    #[track_caller]
    pub fn pulls(&self, options: &[&str], image: &str) -> Output {
        let words = options.iter().copied().chain(["pull", image]);
        let output = self.host.coracle(words).ok();
        self.host.run(&format!("rmi {image}"));
        output
    }

    /// Runs `coracle pull`, which must fail, and leave nothing.
    #[track_caller]
    pub fn refuses(&self, options: &[&str], image: &str) -> Output {
        let words = options.iter().copied().chain(["pull", image]);
        let output = self.host.coracle(words).exits(1);
        self.host.run("images -q").says("");
        output
    }

    /// Credentials as `docker login` has them.
    pub fn logged_in(&self, servers: &[&str]) {
        let auth = base64(&format!("{USER}:{PASSWORD}"));
        let entries = servers
            .iter()
            .map(|it| format!("{it:?}:{{\"auth\":\"{auth}\"}}"));
        let entries: Vec<String> = entries.collect();
        self.write_config(&format!("{{\"auths\":{{{}}}}}", entries.join(",")));
    }

    pub fn write_config(&self, text: &str) {
        let folder = self.folder(".docker");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), text).unwrap();
    }

    pub fn config(&self) -> serde_json::Value {
        let text = fs::read(self.folder(".docker/config.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// The program with an /etc of its own, which `script` has changed, in a mount namespace of its own.
    pub fn with_own_etc(&self, script: &str, args: &[&str]) -> Output {
        let (upper, work) = (self.folder("etc-upper"), self.folder("etc-work"));
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(&work).unwrap();
        let prepare = format!(
            "mount -t tmpfs none {work} && mkdir {work}/u {work}/w && \
             mount -t overlay none -o lowerdir=/etc,upperdir={work}/u,workdir={work}/w /etc\n{script}\nexec \"$@\"",
            work = work.display(),
        );
        let command = self.host.command(args);
        command
            .wrapped_in(
                "unshare",
                [
                    "--mount",
                    "--propagation",
                    "private",
                    "sh",
                    "-euc",
                    &prepare,
                    "sh",
                ],
            )
            .run_in(&self.host.netns)
    }
}

pub fn base64(text: &str) -> String {
    let encoded = Cmd::new("base64").arg("-w0").stdin(text).run().ok();
    encoded.text().to_owned()
}
