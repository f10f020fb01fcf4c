//! `myzel ticket`: a new one, as text or as a QR code; those on record; taking one back.

use super::print_line;
use super::show::ask_node;
use crate::standing::now_s;
use crate::tickets::{TicketReply, TicketStatus};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use proto::ticket::Ticket;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use reqwest::Method;
use std::io::IsTerminal;
use std::path::Path;

/// Black on white, whatever the colours of the terminal: half of all cameras read no code that is inverted.
const BLACK_ON_WHITE: &str = "\x1b[30;107m";
const COLOURS_BACK: &str = "\x1b[0m";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct TicketArgs {
    #[command(subcommand)]
    command: Option<TicketCommand>,
    /// How long the ticket lives, in hours [default: a week]
    #[arg(long, value_name = "HOURS")]
    hours: Option<f64>,
    /// How many machines may join with it [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
    /// Draw it as a QR code, too
    #[arg(long, conflicts_with = "json")]
    qr: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum TicketCommand {
    /// Show the tickets that this node has issued: until when, and how often used
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a ticket back: nobody joins with it any more
    Revoke {
        /// The ticket, or its name as `myzel ticket list` shows it
        #[arg(value_name = "TICKET|NAME")]
        which: String,
    },
}

pub(super) async fn run(data_dir: &Path, args: &TicketArgs) -> anyhow::Result<()> {
    match &args.command {
        None => issue(data_dir, args).await,
        Some(TicketCommand::List { json }) => list(data_dir, *json).await,
        Some(TicketCommand::Revoke { which }) => revoke(data_dir, which).await,
    }
}

async fn issue(data_dir: &Path, args: &TicketArgs) -> anyhow::Result<()> {
    let mut query = Vec::new();
    if let Some(hours) = args.hours {
        if !(hours > 0.0 && hours <= 24.0 * 366.0) {
            bail!("--hours {hours} is out of range: more than 0, at most a year");
        }
        query.push(("life_s", ((hours * 3600.0).ceil() as u64).to_string()));
    }
    if let Some(uses) = args.uses {
        query.push(("uses", uses.to_string()));
    }
    let query: Vec<String> = query.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
    let path = format!("/myzel/ticket?{}", query.join("&"));
    let text = ask_node(data_dir, Method::POST, &path).await?;
    if args.json {
        return Ok(print_line(text.trim())?);
    }
    let reply: TicketReply = serde_json::from_str(&text)?;
    if args.qr {
        let ticket = Ticket::from_text(&reply.ticket)?;
        print_line(&qr(&ticket, std::io::stdout().is_terminal())?)?;
    }
    Ok(print_line(&reply.ticket)?)
}

/// The ticket in half blocks: two modules a character.
fn qr(ticket: &Ticket, colours: bool) -> anyhow::Result<String> {
    let code = QrCode::with_error_correction_level(ticket.to_qr_text(), EcLevel::L)
        .context("the ticket does not fit a QR code")?;
    let drawn = code.render::<Dense1x2>().build();
    if !colours {
        return Ok(drawn);
    }
    let lines: Vec<String> = drawn
        .lines()
        .map(|line| format!("{BLACK_ON_WHITE}{line}{COLOURS_BACK}"))
        .collect();
    Ok(lines.join("\n"))
}

async fn list(data_dir: &Path, json: bool) -> anyhow::Result<()> {
    let text = ask_node(data_dir, Method::GET, "/myzel/tickets").await?;
    if json {
        return Ok(print_line(text.trim())?);
    }
    let tickets: Vec<TicketStatus> = serde_json::from_str(&text)?;
    let now_s = now_s();
    let lines: Vec<String> = tickets.iter().map(|ticket| line(ticket, now_s)).collect();
    Ok(print_line(&lines.join("\n"))?)
}

async fn revoke(data_dir: &Path, which: &str) -> anyhow::Result<()> {
    // Neither a ticket nor a name has characters that a query must write otherwise.
    if let Some(odd) = which.trim().chars().find(|c| !c.is_ascii_alphanumeric()) {
        bail!("{odd:?} is in no ticket and in no name of one; see: myzel ticket list");
    }
    let path = format!("/myzel/ticket/revoke?which={}", which.trim());
    let text = ask_node(data_dir, Method::POST, &path).await?;
    let ticket: TicketStatus = serde_json::from_str(&text)?;
    Ok(print_line(&line(&ticket, now_s()))?)
}

fn line(ticket: &TicketStatus, now_s: u64) -> String {
    let TicketStatus {
        id,
        state,
        not_after_s,
        uses,
        uses_max,
        ..
    } = ticket;
    let of = uses_max.map_or("any number".to_owned(), |max| max.to_string());
    let ends = match not_after_s.checked_sub(now_s) {
        Some(left_s) => format!("ends in {}", hours(left_s)),
        None => format!("ended {} ago", hours(now_s - not_after_s)),
    };
    format!("{id} {state:<7} {uses} of {of} uses, {ends}")
}

fn hours(seconds: u64) -> String {
    format!("{:.1} h", seconds as f64 / 3600.0)
}

#[cfg(test)]
mod tests;
