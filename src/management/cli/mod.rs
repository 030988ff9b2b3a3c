//! `/cli`: the command line tool in one Python file, as RabbitMQ served it until version 4, and a page that says so.

use crate::management::answer::Answer;

/// Our own writing of RabbitMQ's script of that name, with its commands.
const SCRIPT: &str = include_str!("rabbitmqadmin");

const PAGE: &str = "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>rabbitmqadmin</title>
<h1>rabbitmqadmin</h1>
<p><a href=\"/cli/rabbitmqadmin\">Download it from here</a> (right click, save as), make it executable and put it on the path:
<pre>curl -O http://HOST:15672/cli/rabbitmqadmin
chmod +x rabbitmqadmin
./rabbitmqadmin list queues</pre>
<p>It needs Python 3. <code>rabbitmqadmin help subcommands</code> says what it can do. The newer
<code>rabbitmqadmin</code> (version 2) works with this broker as well; it is a program of its own.
</html>
";

/// What is served at this path without a login: nothing in it is a secret.
pub(super) fn answer(path: &str) -> Option<Answer> {
    match path {
        "/cli/rabbitmqadmin" => Some(Answer::text("application/octet-stream", SCRIPT.to_owned())),
        "/cli/index.html" | "/cli/" => Some(Answer::text("text/html; charset=utf-8", PAGE.to_owned())),
        _ => None,
    }
}
