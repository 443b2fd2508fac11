const http = require("http");

const greeting = process.argv[process.argv.indexOf("--greeting") + 1];
const server = http.createServer((request, response) => {
  console.log(request.method, request.url);
  response.end(`${greeting} from Node\n`);
});
server.listen(process.env.PORT || 3000, process.env.HOST || "0.0.0.0", () => console.log("listening"));
