// What users of npm `etcd3` do, against a real server: `node client.js check HOST:PORT,...`, or `write HOST:PORT,... PREFIX`.
// It ends with 0 only when everything came out as the library promises.
"use strict";

const assert = require("node:assert/strict");
const { readFileSync } = require("node:fs");
const { setTimeout: pause } = require("node:timers/promises");
const { Etcd3, EtcdLeaseInvalidError } = require("etcd3");

const once = (emitter, name) => new Promise((resolve) => emitter.once(name, (...words) => resolve(words)));

async function keysAndValues(kv) {
  assert.equal(await kv.get("missing"), null);
  await kv.put("k/a").value("1");
  assert.equal(await kv.get("k/a").string(), "1");
  assert.equal(await kv.get("k/a").number(), 1);
  await kv.put("k/b").value(Buffer.from([0, 255]));
  assert.deepEqual(await kv.get("k/b").buffer(), Buffer.from([0, 255]));
  await kv.put("k/json").value(JSON.stringify({ deep: [1] }));
  assert.deepEqual(await kv.get("k/json").json(), { deep: [1] });
  assert.deepEqual(await kv.getAll().prefix("k/").keys(), ["k/a", "k/b", "k/json"]);
  assert.deepEqual(await kv.getAll().prefix("k/").sort("Key", "Descend").limit(1).keys(), ["k/json"]);
  assert.equal(await kv.getAll().prefix("k/").count(), 3);
  assert.equal(await kv.get("k/a").exists(), true);
  const answer = await kv.get("k/a").exec();
  assert.equal(answer.kvs[0].version, "1");
  const previous = await kv.put("k/a").value("2").getPrevious();
  assert.equal(previous.value.toString(), "1");
  await kv.put("k/a").touch();
  assert.equal((await kv.get("k/a").exec()).kvs[0].version, "3");
  assert.equal((await kv.delete().key("k/a")).deleted, "1");
  assert.equal((await kv.delete().prefix("k/")).deleted, "2");
  const under = kv.namespace("space/");
  await under.put("x").value("y");
  assert.equal(await kv.get("space/x"), "y");
  assert.deepEqual(await under.getAll().strings(), { x: "y" });
}

async function transactions(kv) {
  const first = await kv.if("t", "Create", "==", 0).then(kv.put("t").value("1")).else(kv.get("t")).commit();
  assert.equal(first.succeeded, true);
  const second = await kv.if("t", "Create", "==", 0).then(kv.put("t").value("2")).else(kv.get("t")).commit();
  assert.equal(second.succeeded, false);
  assert.equal(second.responses[0].response_range.kvs[0].value.toString(), "1");
  const together = kv.stm().transact(async (tx) => {
    const value = await tx.get("t").number();
    await tx.put("t").value(value + 10);
    await tx.put("u").value(value);
  });
  await together;
  assert.equal(await kv.get("t").number(), 11);
  const all = [1, 2, 3, 4, 5].map(() =>
    kv.stm({ retries: 50 }).transact(async (tx) => tx.put("t").value((await tx.get("t").number()) + 1)),
  );
  await Promise.all(all);
  assert.equal(await kv.get("t").number(), 16, "no step of five at once is lost");
  await assert.rejects(kv.if("", "Create", "==", 0).then().commit(), /key is not provided/);
}

async function watches(kv) {
  const watcher = await kv.watch().prefix("w/").withPreviousKV().create();
  const heard = [];
  watcher.on("put", (item, before) => heard.push(["put", item.value.toString(), before && before.value.toString()]));
  watcher.on("delete", (item, before) => heard.push(["delete", item.key.toString(), before.value.toString()]));
  await kv.put("w/a").value("1");
  await kv.put("w/a").value("2");
  const gone = once(watcher, "delete");
  await kv.delete().key("w/a");
  await gone;
  assert.deepEqual(heard.map((event) => event[0]), ["put", "put", "delete"]);
  assert.deepEqual(heard[1], ["put", "2", "1"]);
  assert.deepEqual(heard[2], ["delete", "w/a", "2"]);
  await watcher.cancel();
  const revision = (await kv.put("w/past").value("1")).header.revision;
  await kv.put("w/past").value("2");
  const past = kv.watch().key("w/past").startRevision(revision).only("put").watcher();
  const [first] = await once(past, "put");
  assert.equal(first.value.toString(), "1");
  await past.cancel();
}

async function leasesAndLocks(kv) {
  const lease = kv.lease(10);
  await lease.put("l/a").value("1");
  const id = await lease.grant();
  assert.equal((await kv.leaseClient.leaseTimeToLive({ ID: id, keys: true })).keys[0].toString(), "l/a");
  await lease.keepaliveOnce();
  await lease.revoke();
  assert.equal(await kv.get("l/a"), null);
  const lost = kv.lease(2);
  const told = once(lost, "lost");
  await kv.leaseClient.leaseRevoke({ ID: await lost.grant() });
  const [error] = await told;
  assert.ok(error instanceof EtcdLeaseInvalidError, String(error));
  const lock = kv.lock("lock");
  await lock.acquire();
  await assert.rejects(kv.lock("lock").acquire(), /lock/i);
  await lock.release();
  assert.equal(await kv.lock("lock").do(async () => "inside"), "inside");
}

async function elections(kv) {
  const election = kv.election("boss", 5);
  const first = election.campaign("first");
  await once(first, "elected");
  assert.equal(await election.leader(), "first");
  const observer = await election.observe();
  assert.equal(observer.leader(), "first");
  const second = election.campaign("second");
  await first.proclaim("first again");
  while (observer.leader() !== "first again") await once(observer, "change");
  const elected = once(second, "elected");
  await first.resign();
  await elected;
  while (observer.leader() !== "second") await once(observer, "change");
  await second.resign();
  await observer.cancel();
}

async function house(kv) {
  const status = await kv.maintenance.status();
  assert.match(status.version, /^3\./);
  const { members } = await kv.cluster.memberList({});
  assert.ok(members.some((member) => member.ID === status.leader));
  await assert.rejects(kv.auth.authEnable(), /root user does not exist/);
  await kv.role("r").create();
  await kv.role("r").grant({ permission: "Read", key: "k" });
  const permissions = await kv.role("r").permissions();
  assert.ok(permissions.some((each) => each.permission === "Read"));
  await kv.user("u").create("pw");
  await kv.user("u").addRole("r");
  assert.deepEqual((await kv.user("u").roles()).map((role) => role.name), ["r"]);
  await kv.user("u").delete();
  await kv.role("r").delete();
}

async function check(kv) {
  for (const part of [keysAndValues, transactions, watches, leasesAndLocks, elections, house]) {
    const began = Date.now();
    await part(kv);
    console.log(`${part.name}: ${(Date.now() - began) / 1000} s`);
  }
}

async function write(kv, prefix) {
  let over = false;
  process.stdin.on("end", () => (over = true)).resume();
  for (let number = 0; !over; number++) {
    const key = `${prefix}${String(number).padStart(6, "0")}`;
    try {
      await kv.put(key).value(`value of ${key}`);
      console.log(`acknowledged ${key}`);
    } catch (error) {
      console.log(`failed ${key} ${error.constructor.name} ${JSON.stringify(String(error.message).slice(0, 200))}`);
    }
    await pause(10);
  }
}

async function main([what, endpoints, ...words]) {
  const callOptions = () => ({ deadline: Date.now() + 20_000 });
  const { TLS_CA, TLS_CERT, TLS_KEY } = process.env;
  const hosts = endpoints.split(",").map((endpoint) => `${TLS_CA ? "https" : "http"}://${endpoint}`);
  const credentials = TLS_CA && {
    rootCertificate: readFileSync(TLS_CA),
    certChain: readFileSync(TLS_CERT),
    privateKey: readFileSync(TLS_KEY),
  };
  const kv = new Etcd3({ hosts, credentials, defaultCallOptions: (context) => (context.isStream ? {} : callOptions()) });
  await { check, write }[what](kv, ...words);
  kv.close();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
