//! Which pages of other origins may use the API from a browser (management-api 1.8). None, unless the settings name them.

use axum::http::{HeaderMap, HeaderValue, Method, header};

/// What the settings say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// `https://admin.example.com`; a star is every origin, which then cannot send the browser's passwords.
    pub allow_origins: Vec<String>,
    /// How long a browser may remember an answer to OPTIONS; `None` says nothing about it.
    pub max_age_s: Option<u64>,
}

impl Cors {
    fn any(&self) -> bool {
        self.allow_origins.iter().any(|allowed| allowed == "*")
    }

    /// Whether pages of this origin may use the API.
    pub(super) fn allows(&self, origin: &str) -> bool {
        !matches!(origin, "null" | "*")
            && (self.any() || self.allow_origins.iter().any(|allowed| allowed == origin))
    }

    /// What the answer to a request tells the browser.
    pub(super) fn headers(&self, method: &Method, request: &HeaderMap) -> HeaderMap {
        let mut told = HeaderMap::new();
        let origin = request.get(header::ORIGIN);
        let Some(origin) = origin.filter(|origin| origin.to_str().is_ok_and(|origin| self.allows(origin)))
        else {
            return told;
        };
        if self.any() {
            told.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        } else {
            told.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            let yes = HeaderValue::from_static("true");
            told.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if *method == Method::OPTIONS {
            if let Some(asked) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                told.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            }
            if let Some(seconds) = self.max_age_s {
                told.insert(header::ACCESS_CONTROL_MAX_AGE, seconds.into());
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(cors: &Cors, method: &Method, origin: &'static str) -> HeaderMap {
        let mut request = HeaderMap::new();
        request.insert(header::ORIGIN, HeaderValue::from_static(origin));
        let asked = HeaderValue::from_static("authorization");
        request.insert(header::ACCESS_CONTROL_REQUEST_HEADERS, asked);
        cors.headers(method, &request)
    }

    #[test]
    fn only_named_origins_are_told_anything() {
        let named = Cors {
            allow_origins: vec!["https://a.example".to_owned()],
            max_age_s: Some(5),
        };
        for origin in ["https://b.example", "null", "*", "https://a.example.evil"] {
            assert!(told(&named, &Method::GET, origin).is_empty(), "{origin}");
        }
        let read = told(&named, &Method::GET, "https://a.example");
        assert_eq!(read[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!(read[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(read.len(), 2);
        let asked = told(&named, &Method::OPTIONS, "https://a.example");
        assert_eq!(asked[header::ACCESS_CONTROL_ALLOW_HEADERS], "authorization");
        assert_eq!(asked[header::ACCESS_CONTROL_MAX_AGE], "5");
        assert!(told(&Cors::default(), &Method::GET, "https://a.example").is_empty());
    }

    #[test]
    fn a_star_is_said_without_credentials() {
        let all = Cors {
            allow_origins: vec!["*".to_owned()],
            max_age_s: None,
        };
        let read = told(&all, &Method::OPTIONS, "https://a.example");
        assert_eq!(read[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!read.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
        assert!(!read.contains_key(header::ACCESS_CONTROL_MAX_AGE));
        assert!(told(&all, &Method::GET, "null").is_empty());
    }
}
