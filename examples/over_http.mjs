// Start a command on a server that listens, leave, and come back for its result: with the MCP SDK for TypeScript
// (`npm install @modelcontextprotocol/client`). Node looks for it from the folder of this file upwards, not from where you
// are: copy the file into your project, or into an empty folder, and install it there.
//
//     mcp-tasks serve --transport http          # says where it listens; `mcp-tasks token` shows the token, once
//     MCP_TASKS_URL=http://127.0.0.1:8377/mcp MCP_TASKS_TOKEN=… node over_http.mjs
//
// Run it twice: the first run starts the command and leaves at once, the second waits for its end.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

for (const name of ["MCP_TASKS_URL", "MCP_TASKS_TOKEN"]) {
  if (!process.env[name]) {
    console.error(`set ${name}, as the first lines of this file show`);
    process.exit(2);
  }
}
const requestInit = { headers: { Authorization: `Bearer ${process.env.MCP_TASKS_TOKEN}` } };
const client = new Client({ name: "over-http", version: "1.0.0" }, { versionNegotiation: { mode: "auto" } });
try {
  await client.connect(new StreamableHTTPClientTransport(new URL(process.env.MCP_TASKS_URL), { requestInit }));
} catch (error) {
  console.error(`not connected: ${error.message}`);
  process.exit(1);
}

async function call(name, given) {
  const answer = await client.callTool({ name, arguments: { session: "over-http", ...given } });
  const content = answer.structuredContent;
  if (answer.isError) throw new Error(`${content.code}: ${content.message}. ${content.hint}`);
  return content;
}

// The key makes it the same task however often this line runs.
let task = await call("run_command", { command: "sleep 3; echo done; exit 3", key: "slow", wait_ms: 0 });
if (!task.reused) {
  console.log(`started ${task.task_id}; run me again`);
} else {
  while (["pending", "running"].includes(task.state)) {
    task = await call("poll_task", { task_id: task.task_id, wait_ms: 20_000 });
  }
  process.stdout.write(`${task.state}, exit code ${task.exit_code}: ${task.stdout}`);
  await call("clear_task", { task_id: task.task_id });
}
await client.close();
