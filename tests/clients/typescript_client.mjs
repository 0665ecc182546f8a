// A client on the TypeScript SDK: `node typescript_client.mjs v1|v2|v2-2026 stdio COMMAND...` or `… http|sse URL` (with
// the token in MCP_TASKS_TOKEN) uses the tools as an application does, and prints what it got as one JSON object.
import { createRequire } from "node:module";
import { join } from "node:path";

// Modules are not resolved from this file's folder: they are installed outside of the repository.
const require = createRequire(join(process.env.MCP_TASKS_NODE_DIR, "package.json"));

const [sdk, kind, target, ...args] = process.argv.slice(2);
const PATIENCE_MS = 1_000;

function loaded() {
  if (sdk !== "v1") {
    const { StdioClientTransport } = require("@modelcontextprotocol/client/stdio");
    return { ...require("@modelcontextprotocol/client"), StdioClientTransport };
  }
  const names = ["index", "stdio", "streamableHttp", "sse"];
  return Object.assign({}, ...names.map((name) => require(`@modelcontextprotocol/sdk/client/${name}.js`)));
}

const { Client, StdioClientTransport, StreamableHTTPClientTransport, SSEClientTransport } = loaded();

function transport() {
  if (kind === "stdio") return new StdioClientTransport({ command: target, args, stderr: "inherit" });
  const requestInit = { headers: { Authorization: `Bearer ${process.env.MCP_TASKS_TOKEN}` } };
  const Transport = kind === "http" ? StreamableHTTPClientTransport : SSEClientTransport;
  return new Transport(new URL(target), { requestInit });
}

async function connected(use) {
  const options = sdk === "v2-2026" ? { versionNegotiation: { mode: { pin: "2026-07-28" } } } : {};
  const client = new Client({ name: "typescript-client", version: "1.0.0" }, options);
  await client.connect(transport());
  // Whoever has listed the tools validates every answer against its output schema from then on.
  const { tools } = await client.listTools();
  const call = (name, given, options) =>
    sdk === "v1"
      ? client.callTool({ name, arguments: given }, undefined, options)
      : client.callTool({ name, arguments: given }, options);
  try {
    return await use(call, tools, client);
  } finally {
    await client.close();
  }
}

async function timed(promise) {
  const began = Date.now();
  try {
    return { answer: await promise, ms: Date.now() - began };
  } catch (error) {
    return { error: String(error.message), code: error.code, ms: Date.now() - began };
  }
}

const seen = {};

async function startAndPoll(call) {
  // One call for the whole of a long command: longer than this client's patience.
  const slow = { command: "sleep 3; echo late", key: "slow" };
  seen.blocking = await timed(call("run_command", { ...slow, wait_ms: 20_000 }, { timeout: PATIENCE_MS }));
  // The same as start and poll, each of them short.
  seen.start = await timed(call("run_command", { ...slow, wait_ms: 0 }, { timeout: PATIENCE_MS }));
  seen.polls = [];
  const task_id = seen.start.answer.structuredContent.task_id;
  for (let state = "running"; state === "running"; ) {
    const poll = await timed(call("poll_task", { task_id, wait_ms: 500 }, { timeout: PATIENCE_MS }));
    seen.polls.push(poll);
    state = poll.answer?.structuredContent.state;
  }
  seen.result = await call("get_result", { task_id });
}

await connected(async (call, tools, client) => {
  seen.server = client.getServerVersion();
  seen.tools = tools.map((tool) => tool.name);
  seen.echo = await call("run_command", { command: "echo out; echo err >&2; exit 3", wait_ms: 10_000 });

  // A wait that is longer than the patience, with progress that renews it, while other calls go on beside it.
  const progress = [];
  const renewed = timed(
    call(
      "run_command",
      { command: "sleep 9.5", wait_ms: 20_000 },
      { timeout: 8_000, resetTimeoutOnProgress: true, onprogress: (update) => progress.push(update) },
    ),
  );
  await startAndPoll(call);
  seen.renewed = await renewed;
  seen.progress = progress;

  seen.left = await call("run_command", { command: "sleep 300", wait_ms: 0 });
});

// Another connection, on stdio also another server process: the task is still there.
await connected(async (call) => {
  const { task_id } = seen.left.structuredContent;
  seen.found = await call("poll_task", { task_id });
  seen.refused = await call("clear_task", { task_id });
  seen.cancelled = await call("cancel_task", { task_id });
  seen.listed = await call("list_tasks", { state: "cancelled" });
  seen.cleared = await call("clear_task", { all_finished: true });
  seen.gone = await call("get_result", { task_id });
});

console.log(JSON.stringify(seen));
