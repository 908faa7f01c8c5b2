/* Who answers: the server that the page comes from. */
const PROMISE = 'Images stay between this page and the program that serves it.';
let token = sessionStorage.getItem('token') || '';

async function ask(path, body, method = body ? 'POST' : 'GET') {
  const headers = token ? { Authorization: 'Bearer ' + token } : {};
  const answer = await fetch(path, { method, headers, body, cache: 'no-store' });
  if (answer.status === 401) { find('ask').hidden = false; find('token').focus(); throw new Error('The server wants a token.'); }
  if (answer.headers.get('Content-Type') === 'image/png') return answer.blob();
  const said = await answer.json();
  const problem = said.error || (said.results && said.results[0].error);
  if (problem) throw new Error(problem.replace(/^body: (image: )?/, ''));
  return said;
}
