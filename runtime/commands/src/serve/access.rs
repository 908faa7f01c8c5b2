//! Who may ask: the names under which this server is called, the pages that call it, the token.
//!
//! A page of another site in a browser on this machine can send requests to loopback. Its `Origin` gives it away; where it
//! has made its own name stand for this machine (DNS rebinding), that name in `Host` does.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::http::uri::Authority;
use hyper::{StatusCode, Uri};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::reply::Reply;

/// A token, as its digest: comparing takes the same time for every other one, whatever its length.
pub(super) struct Token([u8; 32]);

impl Token {
    pub(super) fn new(text: &str) -> Token {
        Token(Sha256::digest(text).into())
    }

    fn is(&self, text: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(text).into();
        digest.ct_eq(&self.0).into()
    }
}

/// The rules of one server.
pub(super) struct Access {
    token: Option<Token>,
    /// Whether only this machine reaches it.
    local: bool,
}

impl Access {
    pub(super) fn new(token: Option<Token>, local: bool) -> Access {
        Access { token, local }
    }

    /// Refuses requests that were sent to another name, and those of other sites' pages.
    pub(super) fn check_source(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Reply> {
        let refuse = |status, problem: &str| Err(Reply::error(status, problem));
        if uri.authority().is_some() {
            return refuse(StatusCode::BAD_REQUEST, "a whole URL in the first line: this server is no proxy");
        }
        let host = only(headers, HOST.as_str()).and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let Some(host) = host.filter(|host| !host.as_str().contains('@')) else {
            return refuse(StatusCode::BAD_REQUEST, "expected one header `Host` with a name or an address");
        };
        if self.local && !is_local(host.host()) {
            let problem = "`Host` names another machine: this server answers to localhost and 127.0.0.1";
            return refuse(StatusCode::FORBIDDEN, problem);
        }
        if headers.contains_key(ORIGIN)
            && !only(headers, ORIGIN.as_str()).is_some_and(|origin| is_of(origin, &host))
        {
            return refuse(
                StatusCode::FORBIDDEN,
                "`Origin` is another site: pages of other sites may not ask",
            );
        }
        Ok(())
    }

    /// Whether a request carries the token, or none is asked for.
    pub(super) fn knows_token(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = only(headers, AUTHORIZATION.as_str()).map(HeaderValue::as_bytes);
        let given = given.and_then(|given| given.split_at_checked("Bearer ".len()));
        given.is_some_and(|(scheme, rest)| scheme.eq_ignore_ascii_case(b"Bearer ") && token.is(rest))
    }

    /// Refuses requests without the token.
    pub(super) fn check_token(&self, headers: &HeaderMap) -> Result<(), Reply> {
        match self.knows_token(headers) {
            true => Ok(()),
            false => Err(Reply::error(
                StatusCode::UNAUTHORIZED,
                "expected the header `Authorization: Bearer TOKEN`",
            )
            .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
        }
    }
}

/// A header that may stand there once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether a host, without its port, can only be this machine.
fn is_local(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether an origin is the site under that host. Its scheme is a proxy's where one stands in front.
fn is_of(origin: &HeaderValue, host: &Authority) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    let site = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    site.is_some_and(|site| site.eq_ignore_ascii_case(host.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (hyper::header::HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    fn is_let_in(access: &Access, pairs: &[(&str, &str)]) -> bool {
        access.check_source(&Uri::from_static("/"), &headers(pairs)).is_ok()
    }

    #[test]
    fn a_local_server_answers_to_names_of_this_machine() {
        let (local, open) = (Access::new(None, true), Access::new(Some(Token::new("x")), false));
        for host in ["localhost", "LocalHost:8080", "127.0.0.1:9", "127.1.2.3", "[::1]:8080"] {
            assert!(is_let_in(&local, &[("host", host)]), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example", "192.168.1.7:8080", "::1"]
        {
            assert!(!is_let_in(&local, &[("host", host)]), "{host}");
            assert_eq!(is_let_in(&open, &[("host", host)]), host != "::1", "{host}");
        }
        for pairs in [
            &[][..],
            &[("host", "")],
            &[("host", "localhost"), ("host", "localhost")],
            &[("host", "a@localhost")],
        ] {
            assert!(!is_let_in(&local, pairs) && !is_let_in(&open, pairs), "{pairs:?}");
        }
        let proxied = Uri::from_static("http://localhost/");
        assert!(local.check_source(&proxied, &headers(&[("host", "localhost")])).is_err());
    }

    #[test]
    fn pages_of_other_sites_may_not_ask() {
        let access = Access::new(None, true);
        let from = |origin| is_let_in(&access, &[("host", "localhost:8080"), ("origin", origin)]);
        assert!(from("http://localhost:8080") && from("https://localhost:8080"));
        for origin in [
            "null",
            "",
            "http://evil.example",
            "http://localhost",
            "http://localhost:80",
            "file://",
            "http://127.0.0.1:8080",
        ] {
            assert!(!from(origin), "{origin}");
        }
        let twice = [("host", "a.localhost"), ("origin", "http://a"), ("origin", "http://a")];
        assert!(!is_let_in(&Access::new(None, false), &twice));
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let access = Access::new(Some(Token::new("open sesame")), true);
        let with = |value| access.knows_token(&headers(&[("authorization", value)]));
        assert!(with("Bearer open sesame") && with("bearer open sesame"));
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer open sesam",
            "Bearer open sesame!",
            "Basic open sesame",
            "open sesame",
        ] {
            assert!(!with(value), "{value}");
        }
        assert!(!access.knows_token(&headers(&[])));
        assert!(Access::new(None, true).knows_token(&headers(&[])));
    }
}
