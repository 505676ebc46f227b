//! Tokens of operators: `weir token`, and the one that lets commands on weir's own machine work without any.

use std::{
    io::{ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail, ensure};
use weir_console::{Role, Token};

use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    /// Told with all that is done with it
    #[arg(long)]
    name: String,
    /// `viewer` sees who did what and what a verb would do, `operator` does it
    #[arg(long, value_parser = parse_role)]
    role: Role,
}

fn parse_role(word: &str) -> Result<Role, String> {
    match word {
        "viewer" => Ok(Role::Viewer),
        "operator" => Ok(Role::Operator),
        _ => Err("it is viewer or operator".to_owned()),
    }
}

/// Prints a new token, which is kept nowhere, and the entry that makes a console know it.
pub(crate) fn main(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    check_name(&args.name)?;
    let secret = draw()?;
    let Token { name, role, hash } = Token::new(&args.name, args.role, &secret);
    println!("{secret}");
    eprintln!("the token is shown this once; for the configuration of the console, which is then started again:");
    println!("\n[[console.tokens]]\nname = \"{name}\"\nrole = \"{role}\"\nhash = \"{hash}\"");
    Ok(ExitCode::SUCCESS)
}

/// The entries of the configuration, one by one and together.
pub(crate) fn validate(tokens: &[Token]) -> anyhow::Result<()> {
    for (number, token) in tokens.iter().enumerate() {
        let place = format!("configuration: console.tokens[{number}]");
        check_name(&token.name).with_context(|| format!("{place}.name"))?;
        let is_hash =
            token.hash.len() == 64 && token.hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        ensure!(is_hash, "{place}.hash is no SHA-256 in small hex digits (`weir token` prints the entry)");
        let again = tokens[..number].iter().any(|other| other.name == token.name);
        ensure!(!again, "{place}.name={} is there twice (give each token its own)", token.name);
    }
    Ok(())
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = (1..=64).contains(&name.len()) && name.bytes().all(is_plain);
    ensure!(fits, "a token's name is 1 to 64 letters, digits, `.`, `_` and `-`, {name:?} is not");
    Ok(())
}

/// 256 random bits, in hex, with a prefix by which those who look for lost secrets know it.
fn draw() -> anyhow::Result<String> {
    let mut random = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .context("/dev/urandom gives no random bytes")?;
    Ok(random.iter().fold("weir_".to_owned(), |word, byte| word + &format!("{byte:02x}")))
}

fn local_path(config: &Config) -> PathBuf {
    config.data_dir.join("operator-token")
}

/// The token of this machine's operators, by which commands on it reach the console; made at the first start.
pub(crate) fn local_made(config: &Config) -> anyhow::Result<Token> {
    let path = local_path(config);
    if let Err(error) = std::fs::read_to_string(&path)
        && error.kind() == ErrorKind::NotFound
    {
        make(&path).with_context(|| format!("{} cannot be made", path.display()))?;
    }
    local(config)
}

/// The same, if it is there.
fn local(config: &Config) -> anyhow::Result<Token> {
    Ok(Token::new("operator", Role::Operator, &read(&local_path(config))?))
}

/// Whole or not at all, also when two processes start at once: the first counts.
fn make(path: &Path) -> anyhow::Result<()> {
    let dir = path.parent().context("it has no folder")?;
    std::fs::create_dir_all(dir)?;
    let own = dir.join(format!(".operator-token-{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&own)?;
    file.write_all(draw()?.as_bytes())?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&own, path);
    std::fs::remove_file(&own)?;
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => Ok(linked?),
    }
}

/// The token of a file: its first line, as `weir token` prints it, whatever was printed after it.
fn read(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let word = text.lines().map(str::trim).find(|line| !line.is_empty());
    let word = word.with_context(|| format!("{} is empty (remove it, and start weir again)", path.display()))?;
    let is_token = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    ensure!(is_token, "the first line of {} is no token (it must be the one that `weir token` prints)", path.display());
    Ok(word.to_owned())
}

/// What a command sends: of `--token-file`, else of `WEIR_TOKEN`, else the one of this machine.
pub(crate) fn secret(config: &Config, file: Option<&Path>) -> anyhow::Result<String> {
    if let Some(file) = file {
        return read(file);
    }
    match std::env::var("WEIR_TOKEN") {
        Ok(word) if !word.trim().is_empty() => return Ok(word.trim().to_owned()),
        Ok(_) => bail!("WEIR_TOKEN is empty (unset it, or give it a token of `weir token`)"),
        Err(std::env::VarError::NotUnicode(_)) => bail!("WEIR_TOKEN is not UTF-8 (set it anew)"),
        Err(std::env::VarError::NotPresent) => {}
    }
    let path = local_path(config);
    read(&path).with_context(|| {
        format!(
            "no token (set WEIR_TOKEN or --token-file to one of `weir token`; {} would be taken, and `weir serve`, started \
             with the same data_dir, makes it)",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_machines_token_is_made_once_for_its_owner_only_and_one_that_cannot_be_read_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().join("data"), ..Config::default() };
        assert!(local(&config).is_err() && !config.data_dir.exists(), "who looks makes none");
        let made = local_made(&config).unwrap();
        assert_eq!((local_made(&config).unwrap(), local(&config).unwrap()), (made.clone(), made));
        let path = local_path(&config);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&config.data_dir).unwrap().count(), 1);
        assert_eq!(read(&path).unwrap().len(), "weir_".len() + 64);
        std::fs::write(&path, "\n").unwrap();
        assert!(local_made(&config).unwrap_err().to_string().contains("is empty"));
    }

    #[test]
    fn all_that_weir_token_prints_may_be_in_the_file_and_what_begins_with_something_else_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let entry = "[[console.tokens]]\nname = \"night\"\nrole = \"operator\"\nhash = \"00\"\n";
        std::fs::write(&path, format!("weir_1f\n\n{entry}")).unwrap();
        assert_eq!(read(&path).unwrap(), "weir_1f");
        for wrong in [entry, "the token is shown this once\nweir_1f\n"] {
            std::fs::write(&path, wrong).unwrap();
            let said = read(&path).unwrap_err().to_string();
            assert!(said.contains(&path.display().to_string()) && said.contains("is no token"), "{said}");
        }
    }

    #[test]
    fn entries_that_make_no_sense_are_refused_by_their_place() {
        let entry = |name: &str, secret: &str| Token::new(name, Role::Viewer, secret);
        validate(&[entry("a", "1"), entry("b", "1")]).unwrap();
        let refused = |tokens: &[Token]| format!("{:#}", validate(tokens).unwrap_err());
        assert!(refused(&[entry("a", "1"), entry("a", "2")]).contains("console.tokens[1].name=a is there twice"));
        assert!(refused(&[entry("a b", "1")]).contains("console.tokens[0].name"));
        let word = Token { hash: "weir_1".into(), ..entry("a", "1") };
        assert!(refused(&[word]).contains("console.tokens[0].hash"));
    }
}
