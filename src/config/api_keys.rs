//! API keys: where they are, and how they look.

#[cfg(not(feature = "api-key"))]
mod off {
    use crate::{
        authn::Authenticator,
        config::{document::ApiKeys, problem::Report, tree::At},
    };

    pub(in crate::config) fn check(written: &At<ApiKeys>, report: &mut Report<'_>) {
        crate::config::feature_is_off(written.at, "api_keys", "api-key", report);
    }

    #[expect(clippy::unused_async, reason = "it waits where the feature is on")]
    pub(in crate::config) async fn open(_: &At<ApiKeys>, _: &mut Report<'_>) -> Option<Box<dyn Authenticator>> {
        None
    }
}

#[cfg(not(feature = "api-key"))]
pub(super) use off::{check, open};
#[cfg(feature = "api-key")]
pub(super) use on::{check, open};

#[cfg(feature = "api-key")]
mod on {
    use crate::{
        api_key::{ApiKeyAuthenticator, ApiKeyFormat, MemoryKeyStore, Peppers},
        config::{
            document::{ApiKeys, Pepper, StoreText},
            needed, needed_word,
            problem::Report,
            sinks::place_of,
            transport::header_name,
            tree::At,
        },
    };

    /// Notes what is wrong, and opens nothing.
    pub(in crate::config) fn check(written: &At<ApiKeys>, report: &mut Report<'_>) {
        let keys = &written.value;
        match needed_word(keys.store, written.at, "api_keys.store", report) {
            None => {}
            Some(StoreText::Sqlite) => {
                if let Some(path) = needed(keys.path.as_ref(), written.at, "api_keys.path", "the store sqlite", report)
                {
                    place_of(path, "api_keys.path", report);
                }
                #[cfg(not(feature = "api-key-sqlite"))]
                crate::config::feature_is_off(written.at, "api_keys", "api-key-sqlite", report);
            }
            Some(StoreText::File) => {
                if let Some(path) = needed(keys.path.as_ref(), written.at, "api_keys.path", "the store file", report) {
                    if let Err(error) = std::fs::metadata(&path.value) {
                        let advice = format!("cannot be read: {error}; make it with FileKeyStore::create");
                        report.add(path.at, "api_keys.path", format!("{:?}", path.value), advice);
                    } else {
                        #[cfg(feature = "api-key-file")]
                        if let Err(error) = crate::api_key::FileKeyStore::check(&path.value) {
                            report.bad_file(path.at, "api_keys.path", &path.value, "", &error);
                        }
                    }
                }
                #[cfg(not(feature = "api-key-file"))]
                crate::config::feature_is_off(written.at, "api_keys", "api-key-file", report);
            }
            Some(StoreText::Postgres) => {
                let address =
                    needed(keys.address.as_ref(), written.at, "api_keys.address", "the store postgres", report);
                match address.map(|address| (address.at, address.value.read_text())) {
                    Some((at, Err((value, advice)))) => report.add(at, "api_keys.address", value, advice),
                    #[cfg(feature = "api-key-postgres")]
                    Some((at, Ok(text))) => {
                        report.take(at, "api_keys.address", crate::sql::postgres::options(&text));
                    }
                    #[cfg(not(feature = "api-key-postgres"))]
                    Some((_, Ok(_))) => {}
                    None => {}
                }
                #[cfg(not(feature = "api-key-postgres"))]
                crate::config::feature_is_off(written.at, "api_keys", "api-key-postgres", report);
            }
        }
        if let (Some(address), Some(StoreText::Sqlite | StoreText::File)) = (&keys.address, keys.store) {
            let advice = "is of the store postgres: remove it, and say path = \"..\"";
            report.add(address.at, "api_keys.address", "an address", advice);
        }
        if let (Some(path), Some(StoreText::Postgres)) = (&keys.path, keys.store) {
            let advice = "is of the stores sqlite and file: remove it, or set store = \"sqlite\"";
            report.add(path.at, "api_keys.path", format!("{:?}", path.value), advice);
        }
        if let (Some(migrate), Some(StoreText::File)) = (&keys.migrate, keys.store) {
            let advice = "is of the stores sqlite and postgres: remove it";
            report.add(migrate.at, "api_keys.migrate", migrate.value.to_string(), advice);
        }
        // The form of it is the same whatever the store.
        form(ApiKeyAuthenticator::new(MemoryKeyStore::new()), written, report);
    }

    fn form(
        mut made: ApiKeyAuthenticator,
        written: &At<ApiKeys>,
        report: &mut Report<'_>,
    ) -> Option<ApiKeyAuthenticator> {
        let keys = &written.value;
        let prefix = keys.prefix.as_ref();
        let format = ApiKeyFormat::new(prefix.map_or("pc", |prefix| &prefix.value));
        let format = report.take(prefix.map_or(written.at, |prefix| prefix.at), "api_keys.prefix", format);
        if let Some(mut format) = format {
            if let Some(environment) = &keys.environment {
                let in_environment = format.environment(&environment.value);
                format = report.take(environment.at, "api_keys.environment", in_environment)?;
            }
            made = made.with_format(format);
        }
        let peppers = keys.peppers.as_ref().map(|written| peppers(written, report));
        if peppers.is_none() && !report.took_from("api_keys.peppers") {
            let advice = "are hashed without a pepper, so who can write to their store can make keys: add peppers";
            report.warn(written.at, "api_keys.peppers", "keys", advice);
        }
        if keys.accept_unpeppered.value {
            if peppers.is_none() && !report.took_from("api_keys.peppers") {
                let advice = "is said beside peppers, and there are none: remove the line, or add peppers";
                report.add(keys.accept_unpeppered.at, "api_keys.accept_unpeppered", "true", advice);
            }
            made = made.accept_unpeppered();
        }
        if let Some(header) = &keys.header {
            let name = header_name(header, "api_keys.header", report)?;
            made = report.take(header.at, "api_keys.header", made.with_header(name))?;
        }
        if let Some(realm) = &keys.realm {
            made = report.take(realm.at, "api_keys.realm", made.with_realm(&realm.value))?;
        }
        if let Some(name) = &keys.store_name {
            made = report.take(name.at, "api_keys.store_name", made.with_store_name(&name.value))?;
        }
        if let Some(tenant) = &keys.tenant {
            made = report.take(tenant.at, "api_keys.tenant", made.for_tenant(&tenant.value))?;
        }
        // Without peppers that are written, keys that were made before there was one would be taken.
        Some(match peppers {
            Some(peppers) => made.with_peppers(peppers?),
            None => made,
        })
    }

    fn peppers(written: &At<Vec<At<Pepper>>>, report: &mut Report<'_>) -> Option<Peppers> {
        if written.value.is_empty() && !report.took_from("api_keys.peppers") {
            let advice = "must name at least one: add { id = \"..\", secret = { .. } }, or remove the line";
            report.add(written.at, "api_keys.peppers", "[]", advice);
        }
        let mut made: Option<Peppers> = None;
        for (index, pepper) in written.value.iter().enumerate() {
            let field = report.item("api_keys.peppers", index);
            let id = report.take(pepper.value.id.at, &format!("{field}.id"), pepper.value.id.value.parse());
            let at = pepper.value.secret.at;
            let secret = match pepper.value.secret.value.read() {
                Ok(secret) => secret,
                Err((value, advice)) => {
                    report.add(at, format!("{field}.secret"), value, advice);
                    continue;
                }
            };
            let Some(id) = id else { continue };
            let with = match made.take() {
                None => Peppers::new(id, secret),
                Some(peppers) => peppers.previous(id, secret),
            };
            made = report.take(at, &format!("{field}.secret"), with);
        }
        made
    }

    /// Without a store there is nothing to open, and [`check`] has told so.
    #[cfg(not(any(feature = "api-key-sqlite", feature = "api-key-postgres", feature = "api-key-file")))]
    #[expect(clippy::unused_async, reason = "databases are waited for")]
    pub(in crate::config) async fn open(_: &At<ApiKeys>, _: &mut Report<'_>) -> Option<ApiKeyAuthenticator> {
        None
    }

    #[cfg(any(feature = "api-key-sqlite", feature = "api-key-postgres", feature = "api-key-file"))]
    #[cfg_attr(
        not(any(feature = "api-key-sqlite", feature = "api-key-postgres")),
        expect(clippy::unused_async, reason = "databases are waited for")
    )]
    pub(in crate::config) async fn open(written: &At<ApiKeys>, report: &mut Report<'_>) -> Option<ApiKeyAuthenticator> {
        let keys = &written.value;
        let store: ApiKeyAuthenticator = match keys.store? {
            #[cfg(feature = "api-key-sqlite")]
            StoreText::Sqlite => {
                let path = keys.path.as_ref()?;
                let builder = crate::api_key::SqliteKeyStore::builder(&path.value);
                let builder = if !migrates(keys) { builder.without_migrating() } else { builder };
                match builder.open().await {
                    Ok(store) => ApiKeyAuthenticator::new(store),
                    Err(error) => {
                        cannot_open(path.at, "api_keys.path", &format!("{:?}", path.value), &error, report);
                        return None;
                    }
                }
            }
            #[cfg(feature = "api-key-postgres")]
            StoreText::Postgres => {
                let address = keys.address.as_ref()?;
                let text = match address.value.read_text() {
                    Ok(text) => text,
                    // It was there a moment ago. Without a word, no key would be asked for.
                    Err((value, advice)) => {
                        report.add(address.at, "api_keys.address", value, advice);
                        return None;
                    }
                };
                let builder = crate::api_key::PostgresKeyStore::builder(text.as_str());
                let builder = if !migrates(keys) { builder.without_migrating() } else { builder };
                match builder.connect().await {
                    Ok(store) => ApiKeyAuthenticator::new(store),
                    Err(error) => {
                        cannot_open(address.at, "api_keys.address", "the address", &error, report);
                        return None;
                    }
                }
            }
            #[cfg(feature = "api-key-file")]
            StoreText::File => {
                let path = keys.path.as_ref()?;
                match crate::api_key::FileKeyStore::open(&path.value) {
                    Ok(store) => ApiKeyAuthenticator::new(store),
                    Err(error) => {
                        report.bad_file(path.at, "api_keys.path", &path.value, "", &error);
                        return None;
                    }
                }
            }
            #[cfg(not(all(feature = "api-key-sqlite", feature = "api-key-postgres", feature = "api-key-file")))]
            _ => return None,
        };
        form(store, written, report)
    }

    #[cfg(any(feature = "api-key-sqlite", feature = "api-key-postgres"))]
    fn migrates(keys: &ApiKeys) -> bool {
        keys.migrate.as_ref().is_none_or(|migrate| migrate.value)
    }

    #[cfg(any(feature = "api-key-sqlite", feature = "api-key-postgres"))]
    fn cannot_open(at: usize, field: &str, value: &str, error: &crate::api_key::OpenError, report: &mut Report<'_>) {
        let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
        report.add(at, field, value, format!("cannot be opened: {error}{cause}"));
    }
}
