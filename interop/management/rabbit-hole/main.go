// Calls what rabbit-hole offers for one node, and ends with 1 when something is not as it should be. Terraform's provider
// and the Kubernetes topology operator are built on this library.
package main

import (
	"fmt"
	"net/http"
	"net/url"
	"os"

	rabbithole "github.com/michaelklishin/rabbit-hole/v2"
)

const name = "hole"

// must gives the value or ends the run.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// ok checks the status of an answer that has no body to speak of.
func ok(what string, wanted ...int) func(*http.Response, error) {
	return func(answer *http.Response, err error) {
		if err != nil {
			panic(fmt.Errorf("%s: %w", what, err))
		}
		for _, status := range wanted {
			if answer.StatusCode == status {
				return
			}
		}
		panic(fmt.Errorf("%s: status %d", what, answer.StatusCode))
	}
}

func check(condition bool, what string, found ...any) {
	if !condition {
		panic(fmt.Errorf("%s: %v", what, found))
	}
}

func main() {
	client := must(rabbithole.NewClient(os.Args[1], "guest", "guest"))
	defer func() {
		if problem := recover(); problem != nil {
			fmt.Println(problem)
			os.Exit(1)
		}
	}()
	broker(client)
	access(client)
	topology(client)
	rules(client)
	ok("vhost deleted", 204)(client.DeleteVhost(name))
}

func broker(client *rabbithole.Client) {
	check(must(client.Overview()).RabbitMQVersion != "", "overview")
	nodes := must(client.ListNodes())
	check(len(nodes) == 1 && nodes[0].IsRunning, "nodes", nodes)
	must(client.GetNode(nodes[0].Name))
	check(must(client.Whoami()).Name == "guest", "whoami")
	must(client.GetClusterName())
	must(client.ListFeatureFlags())
	must(client.ListConnections())
	must(client.ListChannels())
	must(client.ListConsumers())
	for _, row := range must(client.ListConnections()) {
		check(must(client.GetConnection(row.Name)).Name == row.Name, "connection", row.Name)
	}
	for _, row := range must(client.ListChannels()) {
		must(client.GetChannel(row.Name))
	}
	check(must(client.HealthCheckAlarms()).Status == "ok", "alarms")
	check(must(client.HealthCheckLocalAlarms()).Status == "ok", "local alarms")
	check(must(client.HealthCheckProtocolListener("amqp")).Status == "ok", "protocol listener")
	check(must(client.HealthCheckNodeIsQuorumCritical()).Status == "ok", "quorum critical")
	check(must(client.HealthCheckVirtualHosts()).Status == "ok", "virtual hosts")
}

func access(client *rabbithole.Client) {
	settings := rabbithole.VhostSettings{Description: "a vhost", Tags: []string{"one"}}
	ok("vhost", 201)(client.PutVhost(name, settings))
	ok("vhost again", 204)(client.PutVhost(name, settings))
	vhost := must(client.GetVhost(name))
	check(vhost.Description == "a vhost" && len(vhost.Tags) == 1, "vhost", vhost)
	must(client.ListVhosts())
	ok("user", 201)(client.PutUser("holly", rabbithole.UserSettings{Password: "secret", Tags: rabbithole.UserTags{"monitoring"}}))
	user := must(client.GetUser("holly"))
	check(user.PasswordHash != "" && len(user.Tags) == 1, "user", user)
	must(client.ListUsers())
	all := rabbithole.Permissions{Configure: ".*", Write: ".*", Read: ".*"}
	ok("permissions", 201)(client.UpdatePermissionsIn(name, "holly", all))
	check(must(client.GetPermissionsIn(name, "holly")).Read == ".*", "permissions")
	check(len(must(client.ListPermissionsOf("holly"))) == 1, "permissions of a user")
	topic := rabbithole.TopicPermissions{Exchange: "amq.topic", Write: "^a", Read: ".*"}
	ok("topic permissions", 201)(client.UpdateTopicPermissionsIn(name, "holly", topic))
	check(len(must(client.GetTopicPermissionsIn(name, "holly"))) == 1, "topic permissions")
	ok("topic permissions cleared", 204)(client.ClearTopicPermissionsIn(name, "holly"))
	ok("permissions cleared", 204)(client.ClearPermissionsIn(name, "holly"))
	ok("user limits", 201, 204)(client.PutUserLimits("holly", rabbithole.UserLimitsValues{"max-connections": 10}))
	check(must(client.GetUserLimits("holly"))[0].Value["max-connections"] == 10, "user limits")
	ok("user limits deleted", 204)(client.DeleteUserLimits("holly", rabbithole.UserLimits{"max-connections"}))
	ok("user deleted", 204)(client.DeleteUser("holly"))
	ok("user deleted again", 404)(client.DeleteUser("holly"))
	ok("vhost limits", 201, 204)(client.PutVhostLimits(name, rabbithole.VhostLimitsValues{"max-queues": 100}))
	check(must(client.GetVhostLimits(name))[0].Value["max-queues"] == 100, "vhost limits")
	ok("vhost limits deleted", 204)(client.DeleteVhostLimits(name, rabbithole.VhostLimits{"max-queues"}))
}

func topology(client *rabbithole.Client) {
	ok("exchange", 201)(client.DeclareExchange(name, "x", rabbithole.ExchangeSettings{Type: "topic", Durable: true}))
	ok("exchange again", 204)(client.DeclareExchange(name, "x", rabbithole.ExchangeSettings{Type: "topic", Durable: true}))
	check(must(client.GetExchange(name, "x")).Type == "topic", "exchange")
	arguments := map[string]any{"x-queue-type": "classic", "x-max-length": 7}
	ok("queue", 201)(client.DeclareQueue(name, "q", rabbithole.QueueSettings{Durable: true, Arguments: arguments}))
	queue := must(client.GetQueue(name, "q"))
	check(queue.Durable && queue.Type == "classic" && queue.Arguments["x-max-length"].(float64) == 7, "queue", queue)
	check(len(must(client.ListQueuesIn(name))) == 1, "queues")
	page := must(client.PagedListQueuesWithParameters(url.Values{"page": {"1"}, "page_size": {"10"}}))
	check(page.Page == 1 && page.TotalCount >= 1, "a page of queues", page)
	info := rabbithole.BindingInfo{Source: "x", Destination: "q", DestinationType: "queue", RoutingKey: "a.*.#",
		Arguments: map[string]any{"k": "v"}}
	answer := must(client.DeclareBinding(name, info))
	check(answer.StatusCode == 201, "binding", answer.Status)
	// Terraform takes the last part of the location, unescapes it once and looks for it among the keys.
	location := answer.Header.Get("Location")
	last := location[len("q/"):]
	key := must(url.PathUnescape(last))
	found := must(client.ListQueueBindingsBetween(name, "x", "q"))
	check(len(found) == 1 && found[0].PropertiesKey == key, "properties key", location, found)
	info.PropertiesKey = found[0].PropertiesKey
	must(client.ListExchangeBindingsWithSource(name, "x"))
	ok("purged", 204)(client.PurgeQueue(name, "q"))
	ok("binding deleted", 204)(client.DeleteBinding(name, info))
	ok("queue deleted", 204)(client.DeleteQueue(name, "q"))
	ok("exchange deleted", 204)(client.DeleteExchange(name, "x"))
}

func rules(client *rabbithole.Client) {
	policy := rabbithole.Policy{Pattern: "^a", ApplyTo: "queues", Priority: 3, Definition: rabbithole.PolicyDefinition{"max-length": 5}}
	ok("policy", 201)(client.PutPolicy(name, "p", policy))
	check(must(client.GetPolicy(name, "p")).Priority == 3, "policy")
	must(client.ListPolicies())
	ok("policy deleted", 204)(client.DeletePolicy(name, "p"))
	operator := rabbithole.OperatorPolicy{Pattern: "^a", ApplyTo: "queues", Definition: rabbithole.PolicyDefinition{"max-length": 5}}
	ok("operator policy", 201)(client.PutOperatorPolicy(name, "o", operator))
	must(client.GetOperatorPolicy(name, "o"))
	ok("operator policy deleted", 204)(client.DeleteOperatorPolicy(name, "o"))
	ok("global parameter", 201)(client.PutGlobalParameter("hole", map[string]any{"a": 1}))
	must(client.GetGlobalParameter("hole"))
	ok("global parameter deleted", 204)(client.DeleteGlobalParameter("hole"))
	definitions := must(client.ListDefinitions())
	check(definitions.Queues != nil && definitions.Users != nil, "definitions")
	// Its UploadDefinitions drops the vhost of policies, which RabbitMQ refuses too.
	must(client.ListVhostDefinitions(name))
}
