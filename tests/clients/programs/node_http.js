// Node's http module with a keep-alive agent. Usage: node node_http.js PLAN OUT
'use strict';
const fs = require('fs');
const http = require('http');

const [plan, out] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function call([number, method, url, body, headers]) {
    return new Promise((done, failed) => {
        const fields = {};
        for (const field of headers === '-' ? [] : headers.split('|')) {
            const colon = field.indexOf(': ');
            const name = field.slice(0, colon);
            fields[name] = (fields[name] || []).concat(field.slice(colon + 2));
        }
        // Node frames no body of a DELETE by itself.
        if (body !== '-' && method === 'DELETE') fields['Content-Length'] = fs.statSync(body).size;
        const request = http.request(url, { method, agent, headers: fields }, (answer) => {
            const pieces = [];
            answer.on('data', (piece) => pieces.push(piece));
            answer.on('error', failed);
            answer.on('end', () => {
                let head = `${answer.statusCode}\n`;
                for (let at = 0; at < answer.rawHeaders.length; at += 2) {
                    head += `${answer.rawHeaders[at]}: ${answer.rawHeaders[at + 1]}\n`;
                }
                fs.writeFileSync(`${out}/${number}.head`, head, 'latin1');
                fs.writeFileSync(`${out}/${number}.body`, Buffer.concat(pieces));
                done();
            });
        });
        request.on('error', failed);
        // A stream: goes out in chunks where nobody has said how long it is.
        if (body === '-') request.end();
        else fs.createReadStream(body).pipe(request);
    });
}

(async () => {
    for (const line of fs.readFileSync(plan, 'utf8').trimEnd().split('\n')) await call(line.split('\t'));
    agent.destroy();
})();
