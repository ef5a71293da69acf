//! A certificate authority for tests, its certificates as files, and clients and servers that use them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};

use crate::raw::{RawServer, connect};
use crate::scratch;

/// An authority. Its files are gone with it.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// Files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// PEM.
    pub cert: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

impl Authority {
    /// A new one, with a new key.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are fine");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "lictor's tests");
        let key = KeyPair::generate().expect("ring makes keys");
        let folder = scratch("ca");
        let certificate = params.self_signed(&key).expect("the parameters are complete");
        std::fs::write(folder.join("ca.pem"), certificate.pem()).expect("the folder can be written");
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// Its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate for these names, URIs or IP addresses, in files called `file`. Again with the same file: replaced.
    pub fn issue(&self, file: &str, names: &[&str]) -> Pair {
        self.sign(file, params(names))
    }

    /// The same, but valid in the year 2020 only.
    pub fn issue_expired(&self, file: &str, names: &[&str]) -> Pair {
        let mut params = params(names);
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 12, 31));
        self.sign(file, params)
    }

    /// The same, and it ends at this time.
    pub fn issue_until(&self, file: &str, names: &[&str], end: SystemTime) -> Pair {
        let mut params = params(names);
        params.not_after = end.into();
        self.sign(file, params)
    }

    fn sign(&self, file: &str, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("ring makes keys");
        let certificate = params.signed_by(&key, &self.issuer).expect("the parameters are complete");
        let pair = Pair { cert: self.folder.join(format!("{file}.pem")), key: self.folder.join(format!("{file}.key")) };
        replace(&pair.key, &key.serialize_pem());
        replace(&pair.cert, &certificate.pem());
        pair
    }

    /// A TLS client that believes this authority. The handshake happens with the first byte.
    pub fn client(
        &self,
        address: &str,
        name: &str,
        alpn: &[&[u8]],
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Pair>,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        tls_client(&self.client_config(alpn, versions, identity), address, name)
    }

    /// What such a client is made of. It remembers its sessions.
    pub fn client_config(
        &self,
        alpn: &[&[u8]],
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Pair>,
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("the provider has them")
            .with_root_certificates(self.roots());
        let mut config = match identity {
            Some(pair) => builder.with_client_auth_cert(chain(&pair.cert), key(&pair.key)).expect("they fit"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    /// A TLS server that does with each connection what a closure says; with `asks` clients must show a certificate.
    pub fn server(
        &self,
        pair: &Pair,
        alpn: &[&[u8]],
        asks: bool,
        serve: impl Fn(StreamOwned<ServerConnection, TcpStream>) + Send + Sync + 'static,
    ) -> RawServer {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has them");
        let builder = if asks {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider).build();
            builder.with_client_cert_verifier(verifier.expect("there is a root"))
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(chain(&pair.cert), key(&pair.key)).expect("they fit");
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let config = Arc::new(config);
        RawServer::start(move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("the configuration is complete");
            serve(StreamOwned::new(connection, stream));
        })
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(chain(&self.ca()));
        roots
    }
}

/// A TLS client of this configuration. The handshake happens with the first byte.
pub fn tls_client(config: &Arc<ClientConfig>, address: &str, name: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from(name.to_owned()).expect("a valid name");
    let connection = ClientConnection::new(Arc::clone(config), name).expect("the configuration is complete");
    StreamOwned::new(connection, connect(address))
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Sends a GET and reads until the other side ends; an abrupt end is an end.
pub fn get_over(stream: &mut (impl Read + Write), path: &str) -> std::io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let (uris, others): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
    let others: Vec<String> = others.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(others).expect("names are valid");
    let uris = uris.iter().map(|uri| SanType::URI((*uri).to_owned().try_into().expect("URIs are ASCII")));
    params.subject_alt_names.extend(uris);
    params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nobody"));
    params.use_authority_key_identifier_extension = true;
    params
}

/// As orchestrators do: readers see the old file or the new one.
fn replace(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text).expect("the folder can be written");
    std::fs::rename(&draft, path).expect("the folder can be written");
}

fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).expect("it was written").collect::<Result<_, _>>().expect("it is PEM")
}

fn key(path: &Path) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(path).expect("it was written")
}
