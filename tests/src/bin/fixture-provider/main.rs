//! A provider that serves models as OpenAI does, and does each wrong thing when a model of that name is asked.
//!
//! ```text
//! fixture-provider [ADDRESS]      listens there, or on a free port of 127.0.0.1; prints its base URL
//! ```

mod script;
mod server;

use std::process::ExitCode;

use tokio::net::TcpListener;

use server::FixtureProvider;

fn main() -> ExitCode {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.map(|runtime| runtime.block_on(serve(&address)));
    match served {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) | Err(error) => {
            #[expect(clippy::print_stderr, reason = "this is where its starter looks")]
            {
                eprintln!("fixture-provider: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn serve(address: &str) -> std::io::Result<()> {
    let provider = FixtureProvider::serve(TcpListener::bind(address).await?)?;
    #[expect(clippy::print_stdout, reason = "its starter reads where it listens")]
    {
        println!("{}", provider.base_url());
    }
    tokio::signal::ctrl_c().await
}
