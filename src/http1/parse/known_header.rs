//! Names of headers that somebody here asks for, or that come with nearly every head. All others are only
//! passed on.

macro_rules! names {
    ($($name:ident = $text:literal,)*) => {
        /// The name of a header; letter case does not count.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum KnownHeader {
            $($name,)*
            /// Passed on under the name that it came with.
            Other,
        }

        const KNOWN: &[(KnownHeader, &str)] = &[$((KnownHeader::$name, $text),)*];
    };
}

names! {
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AcceptRanges = "accept-ranges",
    AltSvc = "alt-svc",
    Authorization = "authorization",
    Connection = "connection",
    ContentDigest = "content-digest",
    ContentEncoding = "content-encoding",
    ContentLength = "content-length",
    ContentLocation = "content-location",
    ContentMd5 = "content-md5",
    ContentRange = "content-range",
    ContentType = "content-type",
    Cookie = "cookie",
    Date = "date",
    Digest = "digest",
    Expect = "expect",
    Forwarded = "forwarded",
    Host = "host",
    Http2Settings = "http2-settings",
    IfRange = "if-range",
    KeepAlive = "keep-alive",
    Link = "link",
    Location = "location",
    OperationLocation = "operation-location",
    Origin = "origin",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    ProxyConnection = "proxy-connection",
    Range = "range",
    Refresh = "refresh",
    ReprDigest = "repr-digest",
    SecFetchSite = "sec-fetch-site",
    Server = "server",
    Te = "te",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    UserAgent = "user-agent",
    Via = "via",
    XForwardedFor = "x-forwarded-for",
    XGatewayAccount = "x-gateway-account",
    XGatewayKey = "x-gateway-key",
    XOriginalHost = "x-original-host",
    XOriginalUrl = "x-original-url",
    XRealIp = "x-real-ip",
    XRequestId = "x-request-id",
    XRewriteUrl = "x-rewrite-url",
}

/// A set of names, as one number.
#[derive(Clone, Copy, Default)]
pub struct HeaderSet(u64);

impl KnownHeader {
    /// In any letter case.
    pub fn from_bytes(text: &[u8]) -> Self {
        let (Some(first), Some(last)) = (text.first(), text.last()) else { return KnownHeader::Other };
        let name = PLACES[place(text.len(), *first, *last)];
        if text.eq_ignore_ascii_case(name.as_str().as_bytes()) { name } else { KnownHeader::Other }
    }

    /// In lower case; empty for other names.
    pub const fn as_str(self) -> &'static str {
        match self {
            KnownHeader::Other => "",
            known => KNOWN[known as usize].1,
        }
    }
}

impl HeaderSet {
    pub const NONE: HeaderSet = HeaderSet(0);

    pub const fn new(names: &[KnownHeader]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < names.len() {
            bits |= 1 << names[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    pub const fn union(self, others: HeaderSet) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether the two have a name in common.
    pub const fn intersects(self, others: HeaderSet) -> bool {
        self.0 & others.0 != 0
    }

    pub const fn has(self, name: KnownHeader) -> bool {
        self.0 & (1 << name as u8) != 0
    }

    pub fn add(&mut self, name: KnownHeader) {
        self.0 |= 1 << name as u8;
    }
}

/// Where the one name stands that has this length, first and last letter, or others that end up in the same
/// place.
const fn place(length: usize, first: u8, last: u8) -> usize {
    (length + (first | 0x20) as usize + 23 * (last | 0x20) as usize) % 256
}

const PLACES: [KnownHeader; 256] = {
    let mut places = [KnownHeader::Other; 256];
    let mut at = 0;
    while at < KNOWN.len() {
        let (name, text) = KNOWN[at];
        let text = text.as_bytes();
        let place = place(text.len(), text[0], text[text.len() - 1]);
        assert!(
            matches!(places[place], KnownHeader::Other),
            "two names in one place: `place` needs another factor"
        );
        places[place] = name;
        at += 1;
    }
    places
};

const _: () = assert!(KNOWN.len() < 64, "a set of names is one number");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_known_in_any_letter_case_and_nothing_that_only_looks_like_it() {
        for (name, text) in KNOWN {
            assert_eq!(name.as_str(), *text);
            assert_eq!(KnownHeader::from_bytes(text.as_bytes()), *name);
            assert_eq!(KnownHeader::from_bytes(text.to_ascii_uppercase().as_bytes()), *name);
            let mut odd = text.as_bytes().to_vec();
            let middle = odd.len() / 2;
            odd[middle] ^= 1;
            assert_eq!(KnownHeader::from_bytes(&odd), KnownHeader::Other, "{text}");
        }
        for other in ["", "x", "x-thing", "hosts", "x_request_id"] {
            assert_eq!(KnownHeader::from_bytes(other.as_bytes()), KnownHeader::Other);
        }
    }

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let mut names = HeaderSet::new(&[KnownHeader::Host, KnownHeader::XRewriteUrl])
            .union(HeaderSet::new(&[KnownHeader::Te]));
        names.add(KnownHeader::Accept);
        for name in [KnownHeader::Host, KnownHeader::XRewriteUrl, KnownHeader::Te, KnownHeader::Accept] {
            assert!(names.has(name));
        }
        assert!(
            !names.has(KnownHeader::Other)
                && !names.has(KnownHeader::Via)
                && !HeaderSet::NONE.has(KnownHeader::Accept)
        );
    }
}
