//! The live page in a real browser (`browser.rs`).

mod accessibility;
mod cost;
mod pictures;
mod stillness;

use crate::{
    browser::{Browser, DESKTOP, PHONE},
    support::cluster,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_an_election_without_reload_and_survives_the_death_of_its_own_node() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let mut cluster = cluster(3).await;
    let (leader, others) = cluster.roles().await;
    browser.open(&cluster.endpoint(others[0])).await;
    browser.until("a healthy cluster", "word().includes('Healthy') && rings() === 3").await;
    browser.until("its leader", &format!("title().startsWith('Node {leader} leads term')")).await;
    // It would be gone after a reload.
    browser.run("window.opened = true").await;

    cluster.kill(leader).await.expect("it ran");
    browser.until("another leader", &format!("/^Node (?!{leader})\\d+ leads term/.test(title())")).await;
    browser.until("the node that is gone", &format!("label({leader}).includes('No answer')")).await;
    browser.until("the election in the story", "story().some(text => / leads? term \\d+/.test(text))").await;
    assert_eq!(browser.run("return window.opened === true").await, true, "the page was loaded again");
    // The votes stay on record: they are on their way again at their moment, and in a replay.
    browser.until("a later state", "record.newest > record.ballots.at(-1)?.until + 1000").await;
    browser.run("seek(page.at); const { was, gone } = record.ballots.find(one => one.answer === 'yes'); seek((was + gone) / 2)").await;
    assert_eq!(browser.run("return document.querySelectorAll('.pkt.ballot.yes:not([hidden])').length > 0").await, true);
    browser.run("goLive(); document.querySelector('#list .again').click()").await;
    assert_eq!(browser.run("return [page.live, page.replay > page.at]").await, serde_json::json!([false, true]));
    browser.until("the end of the replay", "page.live").await;

    cluster.start_node(leader).await.expect("it starts");
    browser.until("all nodes", "word().includes('Healthy')").await;
    cluster.kill(others[0]).await.expect("it ran");
    browser.until("another node that serves", &format!("/from node (?!{})\\d/.test(served())", others[0])).await;
    browser.until("the death of the node that served", &format!("label({}).includes('No answer')", others[0])).await;
    assert_eq!(browser.run("return window.opened === true").await, true, "the page was loaded again");

    for screen in [DESKTOP, PHONE] {
        browser.show_on(screen, "light").await;
        let fits = browser.run("return document.documentElement.scrollWidth <= innerWidth").await;
        assert_eq!(fits, true, "the page is wider than {screen:?}");
    }
    // Each element explains itself with the keyboard, too.
    browser.run("document.querySelector('.node').focus()").await;
    browser.until("an explanation", "!document.getElementById('tip').hidden").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}
