use std::time::Duration;

use portcullis::{
    Clock, ConfigError, Instants, Secret, StoreError, StoreErrorKind, SystemClock,
    api_key::{
        ApiKey, ApiKeyAdmin, ApiKeyFormat, ApiKeyRecord, HashScheme, Hit, IssueError, KeyFilter, KeyId, KeyIssuer,
        KeyLife, MAX_PAGE, NewApiKey, Owner, Peppers, Revocation,
    },
};
use serde_json::{Value, json};

use crate::{
    Failure,
    args::{self, Args, Command, Create, Format, Life, List},
    import, show, store,
};

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error.kind() {
            StoreErrorKind::Conflict => Self::Refused(error.to_string()),
            _ => Self::Store(with_causes(&error)),
        }
    }
}

impl From<IssueError> for Failure {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Config(error) => error.into(),
            IssueError::Store(error) => error.into(),
            IssueError::NoSuchKey(_) | IssueError::Ended(_) => Self::Refused(error.to_string()),
            _ => Self::Store(error.to_string()),
        }
    }
}

pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string);
    // A driver's text ends with that of the database, which is its source as well.
    let unsaid = |text: String, cause: String| if text.ends_with(&cause) { text } else { format!("{text}: {cause}") };
    causes.fold(error.to_string(), unsaid)
}

/// What a command works with.
struct Session {
    store: std::sync::Arc<dyn ApiKeyAdmin>,
    at: Instants,
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let store = match (args.store, args.store_env) {
        (Some(store), _) => store,
        (None, Some(name)) => variable(&name)?,
        (None, None) => return Err(Failure::Usage("say --store or --store-env".to_owned())),
    };
    let session =
        Session { store: store::open(&store, args.new).await?, at: SystemClock::new().now(), json: args.json };
    match args.command {
        Command::Create(create) => session.create(create).await,
        Command::List(list) => session.list(list).await,
        Command::Show { id } => session.show(&id).await,
        Command::Rotate { id, overlap, no_pepper, format } => {
            if !no_pepper && format.pepper.is_none() {
                session.must_tell_of_peppers(&id).await?;
            }
            session.rotate(&id, overlap, &format).await
        }
        Command::Revoke { id, reason } => session.revoke(&id, &reason).await,
        Command::DisableOwner { owner, reason } => session.disable(&named(&owner)?, &reason).await,
        Command::EnableOwner { owner } => session.enable(&named(&owner)?).await,
        Command::Import { file } => session.import(import::read(&file, session.now())?).await,
        Command::Purge { kept } => session.purge(kept).await,
    }
}

fn variable(name: &str) -> Result<String, Failure> {
    std::env::var(name).map_err(|_| Failure::Usage(format!("the environment variable {name:?} is not set")))
}

fn named(owner: &args::Owner) -> Result<Owner, ConfigError> {
    let named = Owner::new(&owner.subject)?;
    match &owner.tenant {
        Some(tenant) => named.in_tenant(tenant),
        None => Ok(named),
    }
}

fn issuer(format: &Format) -> Result<KeyIssuer, Failure> {
    let mut keys = ApiKeyFormat::new(&format.prefix)?;
    if let Some(environment) = &format.environment {
        keys = keys.environment(environment)?;
    }
    let issuer = KeyIssuer::new().with_format(keys);
    let Some(id) = &format.pepper else { return Ok(issuer) };
    let secret = match (&format.pepper_file, &format.pepper_env) {
        (Some(file), _) => {
            let shown = file.display();
            let mut pepper = std::fs::read(file).map_err(|error| Failure::Usage(format!("{shown}: {error}")))?;
            for end in [b'\n', b'\r'] {
                if pepper.last() == Some(&end) {
                    pepper.pop();
                }
            }
            Secret::new(pepper)
        }
        (None, Some(name)) => Secret::from(variable(name)?),
        (None, None) => return Err(Failure::Usage("say --pepper-file or --pepper-env".to_owned())),
    };
    Ok(issuer.with_peppers(Peppers::new(id.parse()?, secret)?))
}

impl Session {
    fn now(&self) -> u64 {
        self.at.unix_seconds()
    }

    /// A word to people, and an object to programs.
    fn say(&self, text: &str, object: &Value) {
        if self.json {
            println!("{object}");
        } else {
            eprintln!("{text}");
        }
    }

    async fn create(&self, wanted: Create) -> Result<(), Failure> {
        let issuer = issuer(&wanted.format)?;
        let mut key = NewApiKey::for_subject(wanted.subject).name(wanted.name).lives(match wanted.expires {
            Life::For(life) => KeyLife::For(life),
            Life::Never => KeyLife::Never,
        });
        key = wanted.tenant.into_iter().fold(key, NewApiKey::tenant);
        key = wanted.plan.into_iter().fold(key, NewApiKey::plan);
        key = wanted.scopes.into_iter().fold(key, NewApiKey::scope);
        key = wanted.roles.into_iter().fold(key, NewApiKey::role);
        key = wanted.addresses.into_iter().fold(key, NewApiKey::address);
        key = wanted.metadata.into_iter().fold(key, |key, (name, value)| key.metadata(name, value));
        let (key, record) = issuer.issue(&*self.store, key, self.at).await?;
        self.made(&key, record, "").await;
        Ok(())
    }

    /// Prints a new key. Nothing can print it again, so it is shown whatever the store now says.
    async fn made(&self, key: &ApiKey, record: ApiKeyRecord, more: &str) {
        let kept = self.store.get(record.id()).await.ok().flatten();
        let hit = kept.unwrap_or_else(|| Hit::new(record.into()));
        let record = hit.record();
        if self.json {
            println!("{}", json!({"key": key.expose(), "record": show::object(&hit, self.now())}));
        } else {
            println!("{}", key.expose());
            let (owner, end) = (record.owner(), show::end(record.expires()));
            let disabled = if hit.owner_disabled() { " Its owner is disabled." } else { "" };
            eprintln!("key {} of {owner:?}, ends: {end}. It is not shown again.{disabled}{more}", record.id());
        }
    }

    async fn list(&self, list: List) -> Result<(), Failure> {
        let mut filter = KeyFilter::all();
        if let Some(tenant) = list.tenant {
            filter = filter.tenant(tenant);
        } else if list.no_tenant {
            filter = filter.without_tenant();
        }
        filter = list.subject.into_iter().fold(filter, KeyFilter::subject);
        filter = list.environment.into_iter().fold(filter, KeyFilter::environment);
        filter = list.name.into_iter().fold(filter, KeyFilter::name_contains);
        if list.active {
            filter = filter.active_at(self.now());
        }
        let mut hits: Vec<Hit> = Vec::new();
        loop {
            let after = hits.last().map(|hit| *hit.record().id());
            let page = self.store.list(&filter, after.as_ref(), MAX_PAGE).await?;
            if page.is_empty() {
                break;
            }
            hits.extend(page);
        }
        if self.json {
            hits.iter().for_each(|hit| println!("{}", show::object(hit, self.now())));
        } else {
            print!("{}", show::table(&hits, self.now()));
            eprintln!("{} keys", hits.len());
        }
        Ok(())
    }

    async fn find(&self, id: &KeyId) -> Result<Hit, Failure> {
        self.store.get(id).await?.ok_or_else(|| no_key(id))
    }

    async fn show(&self, id: &KeyId) -> Result<(), Failure> {
        let hit = self.find(id).await?;
        if self.json {
            println!("{}", show::object(&hit, self.now()));
        } else {
            print!("{}", show::lines(&hit, self.now()));
        }
        Ok(())
    }

    /// A key of another system never has a pepper, whatever the service asks of the one that replaces it; and it ends.
    async fn must_tell_of_peppers(&self, id: &KeyId) -> Result<(), Failure> {
        if self.find(id).await?.record().scheme() != HashScheme::LegacySha256 {
            return Ok(());
        }
        let problem =
            "is of another system: say --pepper as the service does, or --no-pepper if it takes keys without one";
        Err(Failure::Usage(format!("key {id} {problem}")))
    }

    async fn rotate(&self, id: &KeyId, overlap: Duration, format: &Format) -> Result<(), Failure> {
        let (key, record) = issuer(format)?.rotate(&*self.store, id, overlap, self.at).await?;
        let old = self.store.get(id).await.ok().flatten();
        let ends = old
            .map_or_else(|| "not known, the store does not answer".to_owned(), |old| show::end(old.record().expires()));
        self.made(&key, record, &format!(" The old key {id} ends: {ends}.")).await;
        Ok(())
    }

    async fn revoke(&self, id: &KeyId, reason: &str) -> Result<(), Failure> {
        if !self.store.revoke(id, &Revocation::new(self.now(), reason)?).await? {
            return Err(no_key(id));
        }
        self.say(&format!("key {id} is revoked"), &show::object(&self.find(id).await?, self.now()));
        Ok(())
    }

    async fn disable(&self, owner: &Owner, reason: &str) -> Result<(), Failure> {
        let changed = self.store.disable_owner(owner, &Revocation::new(self.now(), reason)?).await?;
        let word = if changed { "is disabled" } else { "was disabled before" };
        self.say(&format!("{owner:?} {word}"), &standing(owner, true, changed));
        Ok(())
    }

    async fn enable(&self, owner: &Owner) -> Result<(), Failure> {
        let changed = self.store.enable_owner(owner).await?;
        let word = if changed { "is enabled" } else { "was not disabled" };
        self.say(&format!("{owner:?} {word}"), &standing(owner, false, changed));
        Ok(())
    }

    async fn import(&self, records: Vec<ApiKeyRecord>) -> Result<(), Failure> {
        let (mut imported, mut present) = (0_u64, 0_u64);
        for record in records {
            match self.store.insert(record).await {
                Ok(()) => imported += 1,
                Err(error) if error.kind() == StoreErrorKind::Conflict => present += 1,
                Err(error) => return Err(Failure::Store(format!("after {imported}: {}", with_causes(&error)))),
            }
        }
        let text = format!("{imported} keys imported, {present} were there already");
        self.say(&text, &json!({"imported": imported, "present": present}));
        Ok(())
    }

    async fn purge(&self, kept: Duration) -> Result<(), Failure> {
        let purged = self.store.purge(self.at, kept).await?;
        self.say(&format!("{purged} records removed"), &json!({"purged": purged}));
        Ok(())
    }
}

fn no_key(id: &KeyId) -> Failure {
    Failure::Refused(format!("no key {id}"))
}

fn standing(owner: &Owner, disabled: bool, changed: bool) -> Value {
    json!({"subject": owner.subject(), "tenant": owner.tenant(), "disabled": disabled, "changed": changed})
}
