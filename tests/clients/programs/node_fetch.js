// Node's fetch, with a browser's habits: Sec-Fetch-Mode, gzip, redirects followed. Usage: node node_fetch.js PLAN OUT
'use strict';
const fs = require('fs');

const [plan, out] = process.argv.slice(2);

(async () => {
    for (const line of fs.readFileSync(plan, 'utf8').trimEnd().split('\n')) {
        const [number, method, url, body, headers] = line.split('\t');
        const fields = new Headers();
        for (const field of headers === '-' ? [] : headers.split('|')) {
            const colon = field.indexOf(': ');
            fields.append(field.slice(0, colon), field.slice(colon + 2));
        }
        const sent = body === '-' ? undefined : fs.readFileSync(body);
        const answer = await fetch(url, { method, headers: fields, body: sent });
        fs.writeFileSync(`${out}/${number}.body`, Buffer.from(await answer.arrayBuffer()));
        let head = `${answer.status}\n`;
        for (const [name, value] of answer.headers) head += `${name}: ${value}\n`;
        fs.writeFileSync(`${out}/${number}.head`, head, 'latin1');
    }
})();
